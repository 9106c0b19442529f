#include "numpy_view.h"

#include <cstdint>
#include <cstring>

#include "algan/error.h"

namespace algan::bindings {
namespace {

std::string describe(const py::array& array) {
  std::string text = py::str(array.dtype()).cast<std::string>() + " (";
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(array.shape(i));
  }
  return text + (array.ndim() == 1 ? ",)" : ")");
}

py::array as_array(const py::object& object, const std::string& name, const std::string& wanted) {
  if (!py::isinstance<py::array>(object)) {
    throw InputError(name + ": expected " + wanted + ", got " +
                     py::str(py::type::of(object).attr("__name__")).cast<std::string>() +
                     "; convert it with np.asarray()");
  }
  return py::reinterpret_borrow<py::array>(object);
}

template <typename T>
bool has_dtype(const py::array& array) {
  return array.dtype().equal(py::dtype::of<T>());
}

template <typename T>
Box read_box(const py::array& boxes, py::ssize_t row) {
  double edge[4];
  for (py::ssize_t i = 0; i < 4; ++i) {
    T value;
    std::memcpy(&value, boxes.data(row, i), sizeof(T));  // strides need not keep T aligned
    edge[i] = static_cast<double>(value);
  }
  return Box{edge[0], edge[1], edge[2], edge[3]};
}

}  // namespace

PixelFormat pixel_format(const std::string& name) {
  if (name == "bgr8") return PixelFormat::kBgr8;
  if (name == "rgb8") return PixelFormat::kRgb8;
  if (name == "grey8") return PixelFormat::kGrey8;
  throw InputError("pixel_format: expected bgr8, rgb8 or grey8, got \"" + name + "\"");
}

Downscale downscale(const std::string& name) {
  if (name == "area") return Downscale::kArea;
  if (name == "bilinear") return Downscale::kBilinear;
  throw InputError("spec.downscale: expected area or bilinear, got \"" + name + "\"");
}

ImageView view_image(const py::object& object, PixelFormat format) {
  const bool grey = format == PixelFormat::kGrey8;
  const std::string wanted =
      grey ? "a uint8 array (H, W) for grey8" : "a uint8 array (H, W, 3) for bgr8 or rgb8";
  const py::array image = as_array(object, "image", wanted);
  if (!has_dtype<std::uint8_t>(image)) {
    throw InputError("image: expected " + wanted + ", got " + describe(image) +
                     "; scale it to 0..255 and use .astype(np.uint8)");
  }
  if (image.ndim() != (grey ? 2 : 3) || (!grey && image.shape(2) != 3)) {
    throw InputError("image: expected " + wanted + ", got " + describe(image) +
                     (image.ndim() == 2 ? "; pass pixel_format=\"grey8\" if it is grey"
                                        : "; drop other channels, e.g. image[:, :, :3].copy()"));
  }
  const ImageView view{static_cast<const std::uint8_t*>(image.data()), image.shape(0),
                       image.shape(1), image.strides(0), format};
  check_image(view);
  const py::ssize_t pixel_bytes = view.channels();
  const bool pixels_touch = image.shape(1) == 1 || image.strides(1) == pixel_bytes;
  const bool channels_touch = grey || image.strides(2) == 1;
  if (!pixels_touch || !channels_touch) {
    throw InputError("image: expected neighbouring pixels " + std::to_string(pixel_bytes) +
                     " bytes apart and channels 1 byte apart (any row stride), got strides " +
                     py::str(image.attr("strides")).cast<std::string>() +
                     "; pass np.ascontiguousarray(image)");
  }
  return view;
}

std::vector<Box> read_boxes(const py::object& object, const ImageView& image) {
  if (object.is_none()) {
    return {
        Box{0.0, 0.0, static_cast<double>(image.width_px), static_cast<double>(image.height_px)}};
  }
  const std::string wanted = "a float32 or float64 array (N, 4) of xyxy pixels";
  const py::array boxes = as_array(object, "boxes", wanted);
  const bool single = has_dtype<float>(boxes);
  if (!single && !has_dtype<double>(boxes)) {
    throw InputError("boxes: expected " + wanted + ", got " + describe(boxes) +
                     "; use .astype(np.float32)");
  }
  if (boxes.ndim() != 2 || boxes.shape(1) != 4) {
    throw InputError("boxes: expected " + wanted + ", got " + describe(boxes) +
                     "; a single box is array[None, :]");
  }
  std::vector<Box> read;
  read.reserve(static_cast<std::size_t>(boxes.shape(0)));
  for (py::ssize_t i = 0; i < boxes.shape(0); ++i) {
    read.push_back(single ? read_box<float>(boxes, i) : read_box<double>(boxes, i));
  }
  return clip_boxes(image, read);
}

Slots view_slots(const py::object& object, const InputSpec& spec) {
  const std::string shape = "(M, " + std::to_string(spec.channels()) + ", " +
                            std::to_string(spec.height_px) + ", " + std::to_string(spec.width_px) +
                            ")";
  const std::string wanted = "a C-contiguous, writeable float32 array " + shape;
  py::array out = as_array(object, "out", wanted);
  const bool right_shape = out.ndim() == 4 &&
                           out.shape(1) == static_cast<py::ssize_t>(spec.channels()) &&
                           out.shape(2) == spec.height_px && out.shape(3) == spec.width_px;
  if (!right_shape || !has_dtype<float>(out)) {
    throw InputError("out: expected " + wanted + ", got " + describe(out));
  }
  const bool c_order = (out.flags() & py::array::c_style) != 0;
  const bool aligned = (reinterpret_cast<std::uintptr_t>(out.data()) % alignof(float)) == 0;
  if (!c_order || !out.writeable() || !aligned) {
    throw InputError("out: expected " + wanted + ", got one that is " +
                     (!out.writeable() ? "read-only"
                      : c_order        ? "not aligned"
                                       : "not C-contiguous") +
                     "; make it with np.empty()");
  }
  return Slots{static_cast<float*>(out.mutable_data()), static_cast<std::size_t>(out.shape(0))};
}

}  // namespace algan::bindings
