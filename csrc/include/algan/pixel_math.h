// Per-pixel formulas, once, for the scalar path, the tails of the SIMD paths, and CUDA.
//
// An axis maps the crop [begin, begin + extent) onto n outputs, step = extent / n:
//   area:     output i averages [begin + i*step, begin + (i+1)*step), by exact coverage
//   bilinear: output i lies at begin + (i + 0.5)*step - 0.5 and blends its two neighbours
// Both are one Tap: unit * (first*v[start] + v[start+1] + ... + last*v[start+count-1]).
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define ALGAN_HD __host__ __device__ __forceinline__
#else
// Always inlined: an out-of-line copy compiled for one instruction set could otherwise be
// merged by the linker into code that runs on a machine without it.
#define ALGAN_HD inline __attribute__((always_inline))
#endif

namespace algan {

struct Tap {
  std::int32_t start;  // first source pixel
  std::int32_t count;  // source pixels, at least 1; 1 means `last` is 0
  float first;         // weight of v[start], 0 to 1
  float last;          // weight of v[start + count - 1], 0 to 1
  float unit;          // 1 / (sum of the weights)
};

// Pixels outside [0, limit) belong to a neighbouring part and must not leak in.
ALGAN_HD std::int32_t clamp_pixel(double position, std::int32_t limit) {
  if (position < 0.0) return 0;
  if (position > static_cast<double>(limit - 1)) return limit - 1;
  return static_cast<std::int32_t>(position);
}

ALGAN_HD Tap bilinear_tap(double begin, double step, std::int32_t i, std::int32_t limit) {
  const double centre = begin + (static_cast<double>(i) + 0.5) * step - 0.5;
  const double below = floor(centre);
  const std::int32_t left = clamp_pixel(below, limit);
  const std::int32_t right = clamp_pixel(below + 1.0, limit);
  const double fraction = centre - below;
  if (left == right || fraction == 0.0) return Tap{left, 1, 1.0F, 0.0F, 1.0F};
  return Tap{left, 2, static_cast<float>(1.0 - fraction), static_cast<float>(fraction), 1.0F};
}

ALGAN_HD Tap area_tap(double begin, double step, std::int32_t i, std::int32_t limit) {
  const double lower = begin + static_cast<double>(i) * step;
  const double upper = begin + static_cast<double>(i + 1) * step;
  const std::int32_t start = clamp_pixel(floor(lower), limit);
  const std::int32_t end = clamp_pixel(ceil(upper) - 1.0, limit);
  if (end <= start) return Tap{start, 1, 1.0F, 0.0F, 1.0F};
  const double first = static_cast<double>(start) + 1.0 - lower;
  const double last = upper - static_cast<double>(end);
  // At the crop's ends rounding may push a coverage past a whole pixel by one part in 1e15.
  const double first_weight = first > 1.0 ? 1.0 : first;
  const double last_weight = last > 1.0 ? 1.0 : last;
  const double sum = first_weight + last_weight + static_cast<double>(end - start - 1);
  return Tap{start, end - start + 1, static_cast<float>(first_weight),
             static_cast<float>(last_weight), static_cast<float>(1.0 / sum)};
}

ALGAN_HD float normalise(float value, float scale, float bias) { return value * scale + bias; }

ALGAN_HD float max3(float r, float g, float b) {
  const float rg = r > g ? r : g;
  return rg > b ? rg : b;
}

ALGAN_HD float mean3(float r, float g, float b) { return (r + g + b) * (1.0F / 3.0F); }

}  // namespace algan
