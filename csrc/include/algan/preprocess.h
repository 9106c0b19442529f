// Pixels to network input: crop, resize, RGB order, normalise, append channel maximum and mean.
//
//   in   an ImageView of any PixelFormat, any row stride, and boxes of it
//   out  N slots, each (C, height_px, width_px) or (height_px, width_px, C), C order;
//        C is 3 to 5; float32, float16 or uint8
//   channel 0, 1, 2  (value / 255 - mean) / std of red, green, blue; a grey image is all three
//   channel 3, 4     maximum and mean over channels 0 to 2, as asked for
//   uint8            value itself, rounded half up, for networks that normalise
//
// Every output depends on its own image and box only: not on its slot, nor on other boxes.
// No threads are started; any number of threads may call at once. The filters are in pixel_math.h,
// the colours in color_math.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "algan/image_view.h"

namespace algan {

enum class Downscale { kArea, kBilinear };
// Stretch: the crop fills the slot. Letterbox: it keeps its proportions, centred, and the rest of
// the slot is `pad_level`.
enum class Fit { kStretch, kLetterbox };
enum class Pooled { kNone, kMax, kMean, kMaxMean };
enum class Element { kFloat32, kFloat16, kUint8 };
enum class Layout { kNchw, kNhwc };

struct InputSpec {
  std::int32_t height_px;
  std::int32_t width_px;
  Pooled pooled;
  Downscale downscale;
  std::array<double, 3> mean;  // RGB
  std::array<double, 3> std;   // RGB
  Fit fit = Fit::kStretch;
  double pad_level = 0.0;   // grey level, 0 to 255
  double box_margin = 0.0;  // added on every side of a box, as a share of that side; 0 to 10

  std::size_t channels() const {
    return pooled == Pooled::kMaxMean ? 5 : pooled == Pooled::kNone ? 3 : 4;
  }
  std::size_t slot_elements() const {
    return channels() * static_cast<std::size_t>(height_px) * static_cast<std::size_t>(width_px);
  }
};

// Where the outputs go: memory of the caller's, aligned to its elements.
struct Slots {
  void* data;
  Element element = Element::kFloat32;
  Layout layout = Layout::kNchw;

  std::size_t element_bytes() const {
    return element == Element::kFloat32 ? 4 : element == Element::kFloat16 ? 2 : 1;
  }
};

// Pixels; the maxima are exclusive edges.
struct Box {
  double x_min, y_min, x_max, y_max;
};

// Pixels; angle clockwise as seen on the image, as in OpenCV's RotatedRect. Sides above 0.
struct RotatedBox {
  double x_centre, y_centre, width, height, angle_degrees;
};

// Throws InputError unless the image and the spec can be used.
void check_image(const ImageView& image);
void check_spec(const InputSpec& spec);
// Throws InputError where uint8 cannot hold what the spec asks for.
void check_slots(const InputSpec& spec, const Slots& slots);

// The boxes with their margin, clipped to the image. Throws InputError naming the first box that is
// not finite or has no area inside the image.
std::vector<Box> clip_boxes(const ImageView& image, const std::vector<Box>& boxes,
                            double margin = 0.0);
// The boxes with their margin. Throws InputError naming the first that is not finite, has no area,
// whose centre lies outside the image, or that is more than 16384 px from corner to corner.
std::vector<RotatedBox> check_rotated(const ImageView& image, const std::vector<RotatedBox>& boxes,
                                      double margin = 0.0);

// Writes boxes.size() slots of spec.slot_elements() each; `boxes` from clip_boxes.
void preprocess(const ImageView& image, const std::vector<Box>& boxes, const InputSpec& spec,
                const Slots& slots);
// The same for boxes from check_rotated; pixels beyond the image's edge repeat its last ones.
void preprocess(const ImageView& image, const std::vector<RotatedBox>& boxes, const InputSpec& spec,
                const Slots& slots);

// Names of the paths that this machine can run, fastest first, and the one in use. The variable
// ALGAN_SIMD chooses the path at first use; an unknown or impossible name throws InputError.
std::vector<std::string> available_simd();
std::string active_simd();
// For tests: use this path from now on; "" goes back to the choice made at first use.
void force_simd(const std::string& name);

}  // namespace algan
