// What can be used as an image, a spec, a box or an output, and what the message is if not.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "algan/error.h"
#include "algan/preprocess.h"

namespace algan {
namespace {

// Keeps every pixel index and row length within 32 bits.
constexpr std::int64_t kMaxSidePx = 1 << 20;
constexpr std::int32_t kMaxOutputPx = 4096;
constexpr double kMaxRotatedDiagonalPx = 16384.0;
constexpr double kMaxMargin = 10.0;

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.7g", value);
  return text;
}

std::string describe(const Box& box) {
  return "(" + number(box.x_min) + ", " + number(box.y_min) + ", " + number(box.x_max) + ", " +
         number(box.y_max) + ")";
}

std::string describe(const RotatedBox& box) {
  return "(" + number(box.x_centre) + ", " + number(box.y_centre) + ", " + number(box.width) +
         ", " + number(box.height) + ", " + number(box.angle_degrees) + ")";
}

std::string size_of(const ImageView& image) {
  return std::to_string(image.width_px) + " x " + std::to_string(image.height_px) +
         " px (width x height)";
}

Box clip_box(const ImageView& image, const Box& box, double margin, std::size_t index) {
  const std::string name = "boxes[" + std::to_string(index) + "]: ";
  if (!std::isfinite(box.x_min) || !std::isfinite(box.y_min) || !std::isfinite(box.x_max) ||
      !std::isfinite(box.y_max)) {
    throw InputError(name + "expected finite numbers (x_min, y_min, x_max, y_max), got " +
                     describe(box));
  }
  const double more_x = margin * (box.x_max - box.x_min);
  const double more_y = margin * (box.y_max - box.y_min);
  const auto width = static_cast<double>(image.width_px);
  const auto height = static_cast<double>(image.height_px);
  const Box clipped{std::max(box.x_min - more_x, 0.0), std::max(box.y_min - more_y, 0.0),
                    std::min(box.x_max + more_x, width), std::min(box.y_max + more_y, height)};
  const bool on_image = box.x_max > 0.0 && box.y_max > 0.0 && box.x_min < width &&
                        box.y_min < height && box.x_max > box.x_min && box.y_max > box.y_min;
  if (!on_image || !(clipped.x_max > clipped.x_min) || !(clipped.y_max > clipped.y_min)) {
    throw InputError(name + "expected x_min < x_max and y_min < y_max inside the image of " +
                     size_of(image) + ", got " + describe(box));
  }
  return clipped;
}

RotatedBox check_rotated_box(const ImageView& image, const RotatedBox& box, double margin,
                             std::size_t index) {
  const std::string name = "boxes[" + std::to_string(index) + "]: ";
  const RotatedBox wider{box.x_centre, box.y_centre, box.width * (1.0 + 2.0 * margin),
                         box.height * (1.0 + 2.0 * margin), std::fmod(box.angle_degrees, 360.0)};
  if (!std::isfinite(box.x_centre) || !std::isfinite(box.y_centre) || !std::isfinite(box.width) ||
      !std::isfinite(box.height) || !std::isfinite(box.angle_degrees)) {
    throw InputError(name +
                     "expected finite numbers (x_centre, y_centre, width, height, angle in "
                     "degrees), got " +
                     describe(box));
  }
  const bool inside = box.x_centre >= 0.0 && box.y_centre >= 0.0 &&
                      box.x_centre < static_cast<double>(image.width_px) &&
                      box.y_centre < static_cast<double>(image.height_px);
  const bool sized = box.width > 0.0 && box.height > 0.0 &&
                     std::hypot(wider.width, wider.height) <= kMaxRotatedDiagonalPx;
  if (!inside || !sized) {
    throw InputError(name + "expected a centre inside the image of " + size_of(image) +
                     ", sides above 0 and a diagonal of at most 16384 px with its margin, got " +
                     describe(box));
  }
  return wider;
}

void check_margin(double margin) {
  if (!(margin >= 0.0 && margin <= kMaxMargin)) {
    throw InputError("spec: expected a box_margin of 0 to 10, got " + number(margin));
  }
}

bool is_yuv420(PixelFormat format) {
  return format == PixelFormat::kNv12 || format == PixelFormat::kNv21 ||
         format == PixelFormat::kI420;
}

}  // namespace

void check_image(const ImageView& image) {
  if (image.height_px < 1 || image.width_px < 1 || image.height_px > kMaxSidePx ||
      image.width_px > kMaxSidePx) {
    throw InputError("image: expected 1 to " + std::to_string(kMaxSidePx) +
                     " px in height and width, got " + std::to_string(image.height_px) + " x " +
                     std::to_string(image.width_px));
  }
  const bool planes = image.data != nullptr &&
                      (!is_yuv420(image.format) || image.chroma != nullptr) &&
                      (image.format != PixelFormat::kI420 || image.chroma_v != nullptr);
  if (!planes) throw InputError("image: expected all planes of its format, got a null pointer");
  const bool yuv = is_yuv420(image.format) || image.format == PixelFormat::kYuyv ||
                   image.format == PixelFormat::kUyvy;
  const bool odd_height = is_yuv420(image.format) && image.height_px % 2 != 0;
  if (odd_height || (yuv && image.width_px % 2 != 0)) {
    throw InputError(
        "image: expected an even width, and for nv12, nv21 and i420 an even height, "
        "got " +
        size_of(image));
  }
  if (image.format == PixelFormat::kGrey16 &&
      (image.white_level < 255 || image.white_level > 65535)) {
    throw InputError("image: expected a white_level of 255 to 65535, got " +
                     std::to_string(image.white_level));
  }
}

void check_spec(const InputSpec& spec) {
  if (spec.height_px < 1 || spec.width_px < 1 || spec.height_px > kMaxOutputPx ||
      spec.width_px > kMaxOutputPx) {
    throw InputError("spec: expected height_px and width_px of 1 to 4096, got " +
                     std::to_string(spec.height_px) + " and " + std::to_string(spec.width_px));
  }
  for (std::size_t c = 0; c < 3; ++c) {
    if (!std::isfinite(spec.mean[c]) || !std::isfinite(spec.std[c]) || spec.std[c] <= 0.0) {
      throw InputError("spec: expected finite means and stds above 0, got mean " +
                       number(spec.mean[c]) + " and std " + number(spec.std[c]));
    }
  }
  if (!(spec.pad_level >= 0.0 && spec.pad_level <= 255.0)) {
    throw InputError("spec: expected a pad_level of 0 to 255, got " + number(spec.pad_level));
  }
  check_margin(spec.box_margin);
}

void check_slots(const InputSpec& spec, const Slots& slots) {
  if (slots.data == nullptr) throw InputError("out: expected memory, got a null pointer");
  const bool same = spec.mean[0] == spec.mean[1] && spec.mean[0] == spec.mean[2] &&
                    spec.std[0] == spec.std[1] && spec.std[0] == spec.std[2];
  if (slots.element == Element::kUint8 && spec.pooled != Pooled::kNone && !same) {
    throw InputError(
        "out: uint8 holds pixels before they are normalised, so that the maximum and mean of the "
        "channels need the same mean and std for all three; use float32 or float16, or no pooled "
        "channels");
  }
}

std::vector<Box> clip_boxes(const ImageView& image, const std::vector<Box>& boxes, double margin) {
  check_margin(margin);
  std::vector<Box> clipped;
  clipped.reserve(boxes.size());
  for (const Box& box : boxes) clipped.push_back(clip_box(image, box, margin, clipped.size()));
  return clipped;
}

std::vector<RotatedBox> check_rotated(const ImageView& image, const std::vector<RotatedBox>& boxes,
                                      double margin) {
  check_margin(margin);
  std::vector<RotatedBox> checked;
  checked.reserve(boxes.size());
  for (const RotatedBox& box : boxes) {
    checked.push_back(check_rotated_box(image, box, margin, checked.size()));
  }
  return checked;
}

}  // namespace algan
