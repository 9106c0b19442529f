#include "numpy_view.h"

#include <cstdint>
#include <cstring>

#include "algan/error.h"
#include "device_array.h"

namespace algan::bindings {
namespace {

std::string type_name(const py::object& object) {
  return py::str(py::type::of(object).attr("__name__")).cast<std::string>();
}

// Host memory in DLPack's numbering: the CPU's, and pinned for CUDA.
bool on_host(const py::object& object) {
  const auto device = object.attr("__dlpack_device__")().cast<py::tuple>();
  const int kind = py::int_(device[0]).cast<int>();
  return kind == 1 || kind == 3;
}

template <typename T>
double read_number(const py::array& boxes, py::ssize_t row, py::ssize_t column) {
  T value;
  std::memcpy(&value, boxes.data(row, column), sizeof(T));  // strides need not keep T aligned
  return static_cast<double>(value);
}

Element element_of(const py::array& out, const std::string& wanted) {
  if (has_dtype<float>(out)) return Element::kFloat32;
  if (has_dtype<std::uint8_t>(out)) return Element::kUint8;
  if (out.dtype().equal(py::dtype("e"))) return Element::kFloat16;
  throw InputError("out: expected " + wanted + ", got " + describe(out));
}

Layout read_layout(const std::string& name) {
  if (name == "nchw") return Layout::kNchw;
  if (name == "nhwc") return Layout::kNhwc;
  throw InputError("layout: expected nchw or nhwc, got \"" + name + "\"");
}

}  // namespace

std::string describe(const py::array& array) {
  std::string text = py::str(array.dtype()).cast<std::string>() + " (";
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(array.shape(i));
  }
  return text + (array.ndim() == 1 ? ",)" : ")");
}

py::array as_array(const py::object& object, const std::string& name, const std::string& wanted,
                   Memory memory) {
  if (memory == Memory::kDevice) return device_array(object, name, wanted);
  if (py::isinstance<py::array>(object)) return py::reinterpret_borrow<py::array>(object);
  const bool on_gpu = is_device_array(object);
  const bool has_dlpack = py::hasattr(object, "__dlpack__");
  if (on_gpu || (has_dlpack && !on_host(object))) {
    throw InputError(name + ": expected " + wanted + " in host memory, got a " + type_name(object) +
                     " on a device; copy it to the host");
  }
  const auto numpy = py::module_::import("numpy");
  try {
    if (has_dlpack) return numpy.attr("from_dlpack")(object).cast<py::array>();
    if (py::hasattr(object, "__array_interface__")) {
      return numpy.attr("asarray")(object).cast<py::array>();
    }
  } catch (const py::error_already_set& error) {
    throw InputError(name + ": expected " + wanted + ", got a " + type_name(object) +
                     " that NumPy cannot read: " + error.what());
  }
  throw InputError(name + ": expected " + wanted + ", got " + type_name(object) +
                   (object.is_none()  ? "; is there an image at all?"
                    : name == "boxes" ? "; convert them with np.asarray(boxes, np.float32)"
                                      : "; convert it with np.asarray()"));
}

Boxes read_boxes(const py::object& object, const ImageView& image, double margin) {
  Boxes read;
  if (object.is_none()) {
    read.upright = {
        Box{0.0, 0.0, static_cast<double>(image.width_px), static_cast<double>(image.height_px)}};
    return read;
  }
  const std::string wanted =
      "a float32 or float64 array (N, 4) of xyxy pixels or (N, 5) of centre, size and angle";
  const py::array boxes = as_array(object, "boxes", wanted);
  const bool single = has_dtype<float>(boxes);
  if (!single && !has_dtype<double>(boxes)) {
    throw InputError("boxes: expected " + wanted + ", got " + describe(boxes) +
                     "; use .astype(np.float32)");
  }
  if (boxes.ndim() != 2 || (boxes.shape(1) != 4 && boxes.shape(1) != 5)) {
    throw InputError("boxes: expected " + wanted + ", got " + describe(boxes) +
                     "; a single box is array[None, :]");
  }
  read.are_turned = boxes.shape(1) == 5;
  for (py::ssize_t i = 0; i < boxes.shape(0); ++i) {
    const auto at = [&](py::ssize_t k) {
      return single ? read_number<float>(boxes, i, k) : read_number<double>(boxes, i, k);
    };
    if (read.are_turned) {
      read.turned.push_back(RotatedBox{at(0), at(1), at(2), at(3), at(4)});
    } else {
      read.upright.push_back(Box{at(0), at(1), at(2), at(3)});
    }
  }
  read.upright = clip_boxes(image, read.upright, margin);
  read.turned = check_rotated(image, read.turned, margin);
  return read;
}

SlotsView view_slots(const py::object& object, const InputSpec& spec, const std::string& layout,
                     Memory memory) {
  const Layout order = read_layout(layout);
  const std::string channels = std::to_string(spec.channels());
  const std::string size = std::to_string(spec.height_px) + ", " + std::to_string(spec.width_px);
  const bool first = order == Layout::kNchw;
  const std::string wanted = "a C-contiguous, writeable float32, float16 or uint8 array (M, " +
                             (first ? channels + ", " + size : size + ", " + channels) + ")";
  py::array out = as_array(object, "out", wanted, memory);
  const auto planes = static_cast<py::ssize_t>(spec.channels());
  const bool right_shape = out.ndim() == 4 && out.shape(first ? 1 : 3) == planes &&
                           out.shape(first ? 2 : 1) == spec.height_px &&
                           out.shape(first ? 3 : 2) == spec.width_px;
  if (!right_shape) throw InputError("out: expected " + wanted + ", got " + describe(out));
  Slots slots{nullptr, element_of(out, wanted), order};
  const bool c_order = (out.flags() & py::array::c_style) != 0;
  const bool aligned = reinterpret_cast<std::uintptr_t>(out.data()) % slots.element_bytes() == 0;
  if (!c_order || !out.writeable() || !aligned) {
    throw InputError(
        "out: expected " + wanted + ", got one that is " +
        (!out.writeable() ? "read-only"
         : c_order        ? "not aligned"
                          : "not C-contiguous") +
        (memory == Memory::kHost ? "; make it with np.empty()" : "; make a new one on the device"));
  }
  slots.data = out.mutable_data();
  check_slots(spec, slots);
  return SlotsView{slots, static_cast<std::size_t>(out.shape(0))};
}

}  // namespace algan::bindings
