/// @file
/// Where a crop lands in its slot, and where a turned box samples from. Shared with CUDA.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "algan/pixel_math.h"
#include "algan/preprocess.h"

namespace algan {

/// The part of a slot that a crop fills.
struct Region {
  std::int32_t top, left, height, width;
};

/// Source pixels that a turned box reads, and how.
struct RotatedSampling {
  RotatedPlan plan;  ///< relative to the first of these pixels
  std::int64_t top, left;
  std::int32_t height, width;
};

/// Where a crop of this size lands; at least 1 x 1, centred, odd remainders below and right.
inline Region slot_region(const InputSpec& spec, double crop_width, double crop_height) {
  if (spec.fit == Fit::kStretch) return Region{0, 0, spec.height_px, spec.width_px};
  const double scale = std::min(spec.width_px / crop_width, spec.height_px / crop_height);
  const auto side = [scale](double crop, std::int32_t slot) {
    return static_cast<std::int32_t>(
        std::clamp(std::round(crop * scale), 1.0, static_cast<double>(slot)));
  };
  const std::int32_t width = side(crop_width, spec.width_px);
  const std::int32_t height = side(crop_height, spec.height_px);
  return Region{(spec.height_px - height) / 2, (spec.width_px - width) / 2, height, width};
}

/// @param box   from check_rotated()
/// @param area  Downscale::kArea: an output that covers more than a pixel is the mean of its parts
inline RotatedSampling rotated_sampling(const RotatedBox& box, const Region& region, bool area,
                                        std::int64_t image_height, std::int64_t image_width) {
  constexpr double kDegree = 3.14159265358979323846 / 180.0;
  const double cosine = std::cos(box.angle_degrees * kDegree);
  const double sine = std::sin(box.angle_degrees * kDegree);
  const auto parts = [area](double side, std::int32_t outputs) {
    return area ? std::max(1, static_cast<std::int32_t>(std::ceil(side / outputs))) : 1;
  };
  const auto fixed = [](double pixels) {
    return static_cast<std::int64_t>(std::llround(std::ldexp(pixels, kPositionBits)));
  };
  RotatedSampling s{};
  s.plan.n_x = parts(box.width, region.width);
  s.plan.n_y = parts(box.height, region.height);
  const double along_x = box.width / (static_cast<double>(region.width) * s.plan.n_x);
  const double along_y = box.height / (static_cast<double>(region.height) * s.plan.n_y);
  s.plan.x_per_column = fixed(along_x * cosine);
  s.plan.y_per_column = fixed(along_x * sine);
  s.plan.x_per_row = fixed(-along_y * sine);
  s.plan.y_per_row = fixed(along_y * cosine);

  const double half_x = (std::fabs(box.width * cosine) + std::fabs(box.height * sine)) / 2.0;
  const double half_y = (std::fabs(box.width * sine) + std::fabs(box.height * cosine)) / 2.0;
  // A bilinear sample reads one pixel further at most.
  const auto first = [](double edge) {
    return static_cast<std::int64_t>(std::max(std::floor(edge) - 1.0, 0.0));
  };
  const auto end = [](double edge, std::int64_t limit) {
    return static_cast<std::int64_t>(std::min(std::ceil(edge) + 1.0, static_cast<double>(limit)));
  };
  s.left = first(box.x_centre - half_x);
  s.top = first(box.y_centre - half_y);
  s.width = static_cast<std::int32_t>(end(box.x_centre + half_x, image_width) - s.left);
  s.height = static_cast<std::int32_t>(end(box.y_centre + half_y, image_height) - s.top);

  const double u = (along_x - box.width) / 2.0;
  const double v = (along_y - box.height) / 2.0;
  s.plan.x = fixed(box.x_centre + u * cosine - v * sine - 0.5 - static_cast<double>(s.left));
  s.plan.y = fixed(box.y_centre + u * sine + v * cosine - 0.5 - static_cast<double>(s.top));
  return s;
}

}  // namespace algan
