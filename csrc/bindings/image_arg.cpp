#include "image_arg.h"

#include <array>
#include <cstdint>
#include <utility>

#include "algan/error.h"
#include "algan/preprocess.h"
#include "numpy_view.h"

namespace algan::bindings {
namespace {

struct FormatEntry {
  const char* name;
  PixelFormat format;
  int channels;  // length of the last axis; 0: there is no such axis
  const char* wanted;
};

constexpr const char* kColour = "a uint8 array (H, W, 3) for bgr8 or rgb8";
constexpr const char* kFour = "a uint8 array (H, W, 4) for bgra8 or rgba8";
constexpr const char* kPairs = "a uint8 array (H, W, 2) for yuyv or uyvy";
constexpr const char* kBayer = "a uint8 array (H, W) for Bayer patterns";
constexpr const char* kPlanar =
    "a uint8 array (H * 3 / 2, W), or a tuple of the planes' arrays, for nv12, nv21 or i420";

constexpr FormatEntry kFormats[] = {
    {"bgr8", PixelFormat::kBgr8, 3, kColour},
    {"rgb8", PixelFormat::kRgb8, 3, kColour},
    {"grey8", PixelFormat::kGrey8, 0, "a uint8 array (H, W) for grey8"},
    {"bgra8", PixelFormat::kBgra8, 4, kFour},
    {"rgba8", PixelFormat::kRgba8, 4, kFour},
    {"grey16", PixelFormat::kGrey16, 0, "a uint16 array (H, W) for grey16"},
    {"bayer_rggb8", PixelFormat::kBayerRggb8, 0, kBayer},
    {"bayer_bggr8", PixelFormat::kBayerBggr8, 0, kBayer},
    {"bayer_grbg8", PixelFormat::kBayerGrbg8, 0, kBayer},
    {"bayer_gbrg8", PixelFormat::kBayerGbrg8, 0, kBayer},
    {"nv12", PixelFormat::kNv12, 0, kPlanar},
    {"nv21", PixelFormat::kNv21, 0, kPlanar},
    {"i420", PixelFormat::kI420, 0, kPlanar},
    {"yuyv", PixelFormat::kYuyv, 2, kPairs},
    {"uyvy", PixelFormat::kUyvy, 2, kPairs},
};

const FormatEntry& entry(PixelFormat format) {
  for (const FormatEntry& known : kFormats) {
    if (known.format == format) return known;
  }
  throw InputError("pixel_format: unknown");
}

bool is_planar(PixelFormat format) { return entry(format).wanted == kPlanar; }

std::string hint(const py::array& image, const FormatEntry& format) {
  if (image.ndim() == 2 && format.channels != 0)
    return "; say what it is: pixel_format=\"grey8\", \"nv12\", \"bayer_rggb8\", ...";
  if (image.ndim() == 3 && image.shape(2) == 4 && format.channels == 3) {
    return "; pass pixel_format=\"bgra8\" or \"rgba8\" if it has a fourth channel";
  }
  if (image.ndim() == 3 && format.channels == 3) {
    return "; drop other channels, e.g. image[:, :, :3].copy()";
  }
  return "";
}

py::array checked_array(const py::object& object, const FormatEntry& format, Memory memory) {
  py::array image = as_array(object, "image", format.wanted, memory);
  const bool sixteen = format.format == PixelFormat::kGrey16;
  if (sixteen ? !has_dtype<std::uint16_t>(image) : !has_dtype<std::uint8_t>(image)) {
    const std::string how = sixteen ? "; use .astype(np.uint16)"
                            : has_dtype<std::uint16_t>(image) && image.ndim() == 2
                                ? "; pass pixel_format=\"grey16\" if it is grey"
                                : "; scale it to 0..255 and use .astype(np.uint8)";
    throw InputError("image: expected " + std::string(format.wanted) + ", got " + describe(image) +
                     how);
  }
  const bool flat = format.channels == 0;
  if (image.ndim() != (flat ? 2 : 3) || (!flat && image.shape(2) != format.channels)) {
    throw InputError("image: expected " + std::string(format.wanted) + ", got " + describe(image) +
                     hint(image, format));
  }
  return image;
}

void check_neighbours(const py::array& image, py::ssize_t pixel_bytes) {
  const bool pixels_touch =
      image.shape(0) == 0 || image.shape(1) <= 1 || image.strides(1) == pixel_bytes;
  const bool channels_touch = image.ndim() == 2 || image.strides(2) == 1;
  if (pixels_touch && channels_touch) return;
  throw InputError("image: expected neighbouring pixels " + std::to_string(pixel_bytes) +
                   " bytes apart and channels 1 byte apart (any row stride), got strides " +
                   py::str(image.attr("strides")).cast<std::string>() +
                   "; pass np.ascontiguousarray(image)");
}

const std::uint8_t* bytes_of(const py::array& array) {
  return static_cast<const std::uint8_t*>(array.data());
}

std::string two(py::ssize_t height, py::ssize_t width) {
  return "(" + std::to_string(height) + ", " + std::to_string(width) + ")";
}

// Y, then what belongs to the chroma planes, in one array of 3/2 times the height.
void view_stacked(ImageArg& arg, const py::array& image) {
  ImageView& view = arg.view;
  check_neighbours(image, 1);
  if (image.shape(0) % 3 != 0) {
    throw InputError("image: expected a height of 3/2 times that of the picture, got " +
                     describe(image) + "; for separate planes pass a tuple of arrays");
  }
  const bool planar = view.format == PixelFormat::kI420;
  if (planar && (image.strides(0) != image.shape(1) || image.shape(1) % 2 != 0)) {
    throw InputError(
        "image: expected an even width and rows without padding for i420 in one array, got "
        "strides " +
        py::str(image.attr("strides")).cast<std::string>() +
        "; pass np.ascontiguousarray(image), or a tuple of the planes");
  }
  view.height_px = image.shape(0) / 3 * 2;
  view.width_px = image.shape(1);
  view.chroma = view.data + view.height_px * view.row_stride;
  view.chroma_stride = planar ? view.width_px / 2 : view.row_stride;
  view.chroma_v = planar ? view.chroma + view.height_px / 2 * view.chroma_stride : nullptr;
}

py::array chroma_plane(const py::object& object, const ImageArg& arg, py::ssize_t width) {
  const ImageView& view = arg.view;
  py::array plane = as_array(object, "image", kPlanar, arg.memory);
  const py::ssize_t height = view.height_px / 2;
  // NV12's pairs may also be an axis of their own.
  const bool pairs = plane.ndim() == 3 && plane.shape(2) == 2 && width == view.width_px;
  const bool fits = pairs
                        ? plane.shape(0) == height && plane.shape(1) == width / 2
                        : plane.ndim() == 2 && plane.shape(0) == height && plane.shape(1) == width;
  if (!has_dtype<std::uint8_t>(plane) || !fits) {
    throw InputError("image: expected a colour plane of uint8 " + two(height, width) + ", got " +
                     describe(plane));
  }
  check_neighbours(plane, pairs ? 2 : 1);
  return plane;
}

void view_planes(ImageArg& arg, const py::tuple& planes) {
  ImageView& view = arg.view;
  const bool planar = view.format == PixelFormat::kI420;
  if (planes.size() != (planar ? 3U : 2U)) {
    throw InputError("image: expected " +
                     std::string(planar ? "three planes (Y, U, V)" : "two planes (Y, colours)") +
                     ", got " + std::to_string(planes.size()));
  }
  const py::array luma = checked_array(planes[0], entry(view.format), arg.memory);
  check_neighbours(luma, 1);
  view.data = bytes_of(luma);
  view.height_px = luma.shape(0);
  view.width_px = luma.shape(1);
  view.row_stride = luma.strides(0);
  arg.owners.push_back(luma);
  const py::ssize_t width = planar ? view.width_px / 2 : view.width_px;
  for (std::size_t i = 1; i < planes.size(); ++i) {
    const py::array plane = chroma_plane(planes[i], arg, width);
    if (i == 2 && plane.strides(0) != view.chroma_stride) {
      throw InputError("image: expected U and V planes of the same row stride");
    }
    (i == 1 ? view.chroma : view.chroma_v) = bytes_of(plane);
    view.chroma_stride = plane.strides(0);
    arg.owners.push_back(plane);
  }
}

void view_mask(ImageArg& arg, const py::object& object, std::uint8_t masked) {
  if (object.is_none()) return;
  ImageView& view = arg.view;
  const std::string wanted =
      "a uint8 or bool array " + two(view.height_px, view.width_px) + " like the image";
  const py::array mask = as_array(object, "mask", wanted, arg.memory);
  const bool right_type = has_dtype<std::uint8_t>(mask) || has_dtype<bool>(mask);
  const bool right_shape =
      mask.ndim() == 2 && mask.shape(0) == view.height_px && mask.shape(1) == view.width_px;
  if (!right_type || !right_shape || (mask.shape(1) > 1 && mask.strides(1) != 1)) {
    throw InputError("mask: expected " + wanted + ", pixels of a row side by side, got " +
                     describe(mask));
  }
  view.mask = bytes_of(mask);
  view.mask_stride = mask.strides(0);
  view.masked = masked;
  arg.owners.push_back(mask);
}

}  // namespace

PixelFormat pixel_format(const std::string& name) {
  std::string names;
  for (const FormatEntry& known : kFormats) {
    if (name == known.name) return known.format;
    names += (names.empty() ? "" : ", ") + std::string(known.name);
  }
  throw InputError("pixel_format: expected one of " + names + "; got \"" + name + "\"");
}

YuvRange yuv_range(const std::string& name) {
  constexpr std::pair<const char*, YuvRange> kRanges[] = {
      {"bt601", YuvRange::kBt601Limited},
      {"bt601_full", YuvRange::kBt601Full},
      {"bt709", YuvRange::kBt709Limited},
      {"bt709_full", YuvRange::kBt709Full},
  };
  for (const auto& [known, range] : kRanges) {
    if (name == known) return range;
  }
  throw InputError("yuv: expected bt601, bt601_full, bt709 or bt709_full, got \"" + name + "\"");
}

ImageArg view_image(const py::object& object, const ImageOptions& options, const py::object& mask,
                    Memory memory) {
  ImageArg arg{};
  arg.memory = memory;
  ImageView& view = arg.view;
  view.format = options.format;
  view.yuv = options.yuv;
  view.white_level = options.white_level;
  if (is_planar(options.format) && py::isinstance<py::tuple>(object)) {
    view_planes(arg, py::reinterpret_borrow<py::tuple>(object));
  } else {
    const py::array image = checked_array(object, entry(options.format), memory);
    view.data = bytes_of(image);
    view.row_stride = image.strides(0);
    view.height_px = image.shape(0);
    view.width_px = image.shape(1);
    arg.owners.push_back(image);
    if (is_planar(options.format)) {
      view_stacked(arg, image);
    } else if (image.size() > 0) {
      check_neighbours(image, view.pixel_bytes());
    }
  }
  check_image(view);
  view_mask(arg, mask, options.masked);
  return arg;
}

}  // namespace algan::bindings
