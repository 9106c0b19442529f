// Boxes to what the kernel wants to know of them: on the host, once for each box.
#pragma once

#include <cmath>
#include <vector>

#include "algan/sample.h"

namespace algan::cuda {

// As cpu::AxisPlanner has it: begin and end relative to the first source pixel.
inline AxisSampling axis_sampling(double begin, double end, std::int32_t size, bool area) {
  const double step = (end - begin) / static_cast<double>(size);
  return AxisSampling{begin, step, static_cast<std::int32_t>(std::ceil(end)),
                      area && step > 1.0 ? 1 : 0};
}

// Whether no output reads more than two pixels. Steps above 2 are settled by the first output, most
// others below by one of the first few.
inline bool two_taps(const AxisSampling& axis, std::int32_t size) {
  if (axis.shrinks == 0) return true;
  for (std::int32_t i = 0; i < size; ++i) {
    if (tap_of(axis, i).count > 2) return false;
  }
  return true;
}

inline BoxSampling box_sampling(const Box& box, const InputSpec& spec, const ImageView&) {
  const bool area = spec.downscale == Downscale::kArea;
  const double left = std::floor(box.x_min);
  const double top = std::floor(box.y_min);
  BoxSampling s{};
  s.region = slot_region(spec, box.x_max - box.x_min, box.y_max - box.y_min);
  s.top = static_cast<std::int64_t>(top);
  s.left = static_cast<std::int64_t>(left);
  s.y = axis_sampling(box.y_min - top, box.y_max - top, s.region.height, area);
  s.x = axis_sampling(box.x_min - left, box.x_max - left, s.region.width, area);
  s.blends = two_taps(s.y, s.region.height) && two_taps(s.x, s.region.width) ? 1 : 0;
  return s;
}

inline BoxSampling box_sampling(const RotatedBox& box, const InputSpec& spec,
                                const ImageView& image) {
  BoxSampling s{};
  s.region = slot_region(spec, box.width, box.height);
  const RotatedSampling r = rotated_sampling(box, s.region, spec.downscale == Downscale::kArea,
                                             image.height_px, image.width_px);
  s.top = r.top;
  s.left = r.left;
  s.y.extent = r.height;
  s.x.extent = r.width;
  s.rotated = r.plan;
  s.turned = 1;
  return s;
}

}  // namespace algan::cuda
