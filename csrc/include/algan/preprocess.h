// Pixels to network input: crop, resize, RGB order, normalise, append channel maximum and mean.
//
//   in   uint8  (H, W, 3) bgr8 / rgb8 or (H, W) grey8, any row stride
//   out  float32 (N, C, height_px, width_px), C order; C is 3, or 5 with pooled channels
//   plane 0, 1, 2   (value / 255 - mean) / std of red, green, blue; a grey image is all three
//   plane 3, 4      maximum and mean over planes 0 to 2
//
// Every output depends on its own image and box only: not on its slot, nor on other boxes.
// No threads are started; any number of threads may call at once. The filters are in pixel_math.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "algan/image_view.h"

namespace algan {

enum class Downscale { kArea, kBilinear };

struct InputSpec {
  std::int32_t height_px;
  std::int32_t width_px;
  bool pooled_channels;
  Downscale downscale;
  std::array<double, 3> mean;  // RGB
  std::array<double, 3> std;   // RGB

  std::size_t channels() const { return pooled_channels ? 5 : 3; }
  std::size_t slot_floats() const {
    return channels() * static_cast<std::size_t>(height_px) * static_cast<std::size_t>(width_px);
  }
};

// Pixels; the maxima are exclusive edges.
struct Box {
  double x_min, y_min, x_max, y_max;
};

// Throws InputError unless the image and the spec can be used.
void check_image(const ImageView& image);
void check_spec(const InputSpec& spec);

// The boxes, clipped to the image. Throws InputError naming the first box that is not finite or
// has no area inside the image.
std::vector<Box> clip_boxes(const ImageView& image, const std::vector<Box>& boxes);

// Writes boxes.size() slots of spec.slot_floats() floats each to `out`; `boxes` from clip_boxes.
void preprocess(const ImageView& image, const std::vector<Box>& boxes, const InputSpec& spec,
                float* out);

// Names of the paths that this machine can run, fastest first, and the one in use. The variable
// ALGAN_SIMD chooses the path at first use; an unknown or impossible name throws InputError.
std::vector<std::string> available_simd();
std::string active_simd();
// For tests: use this path from now on; "" goes back to the choice made at first use.
void force_simd(const std::string& name);

}  // namespace algan
