/// @file
/// Per-pixel formulas, once, for the scalar path, the tails of the SIMD paths, and CUDA.
///
/// An axis maps the crop [begin, begin + extent) onto n outputs, step = extent / n:
///   area:     output i averages [begin + i*step, begin + (i+1)*step), by exact coverage
///   bilinear: output i lies at begin + (i + 0.5)*step - 0.5 and blends its two neighbours
/// Both are one Tap: unit * (first*v[start] + v[start+1] + ... + last*v[start+count-1]).
///
/// The results are the library's to the last bit only where they are compiled without contraction
/// into FMA (-ffp-contract=off).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "algan/host_device.h"

namespace algan {

/// Source pixels of one output along an axis, and their weights.
struct Tap {
  std::int32_t start;  ///< first source pixel
  std::int32_t count;  ///< source pixels, at least 1; 1 means `last` is 0
  float first;         ///< weight of v[start], 0 to 1
  float last;          ///< weight of v[start + count - 1], 0 to 1
  float unit;          ///< 1 / (sum of the weights)
};

/// Pixels outside [0, limit) belong to a neighbouring part and must not leak in.
ALGAN_HD std::int32_t clamp_pixel(double position, std::int32_t limit) {
  if (position < 0.0) return 0;
  if (position > static_cast<double>(limit - 1)) return limit - 1;
  return static_cast<std::int32_t>(position);
}

/// Tap of output i of a crop that starts at `begin`, bilinear; source pixels are 0 to limit - 1.
ALGAN_HD Tap bilinear_tap(double begin, double step, std::int32_t i, std::int32_t limit) {
  const double centre = begin + (static_cast<double>(i) + 0.5) * step - 0.5;
  const double below = floor(centre);
  const std::int32_t left = clamp_pixel(below, limit);
  const std::int32_t right = clamp_pixel(below + 1.0, limit);
  const double fraction = centre - below;
  if (left == right || fraction == 0.0) return Tap{left, 1, 1.0F, 0.0F, 1.0F};
  return Tap{left, 2, static_cast<float>(1.0 - fraction), static_cast<float>(fraction), 1.0F};
}

/// The same by area.
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

/// (value / 255 - mean) / std, with scale = 1 / (255 std) and bias = -mean / std.
ALGAN_HD float normalise(float value, float scale, float bias) { return value * scale + bias; }

ALGAN_HD float max3(float r, float g, float b) {
  const float rg = r > g ? r : g;
  return rg > b ? rg : b;
}

ALGAN_HD float mean3(float r, float g, float b) { return (r + g + b) * (1.0F / 3.0F); }

/// 0 to 255, rounded half up.
ALGAN_HD std::uint8_t round_byte(float value) {
  const float up = value + 0.5F;
  return static_cast<std::uint8_t>(up < 0.0F ? 0.0F : up > 255.0F ? 255.0F : up);
}

/// IEEE 754 binary16, rounded to nearest even; too large becomes infinite, as processors do it.
ALGAN_HD std::uint16_t half_bits(float value) {
  std::uint32_t bits = 0;
  memcpy(&bits, &value, sizeof(bits));
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000U);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude >= 0x47800000U) {  // 65536 and above
    const std::uint32_t nan = magnitude > 0x7F800000U ? 0x200U : 0U;
    return static_cast<std::uint16_t>(sign | 0x7C00U | nan);
  }
  if (magnitude < 0x38800000U) {  // below 2^-14: fixed point in units of 2^-24
    float absolute = 0.0F;
    memcpy(&absolute, &magnitude, sizeof(absolute));
    const float shifted = absolute + 0.5F;  // 2^-24 is the last place of 0.5
    std::uint32_t units = 0;
    memcpy(&units, &shifted, sizeof(units));
    return static_cast<std::uint16_t>(sign | (units - 0x3F000000U));
  }
  const std::uint32_t even = magnitude >> 13 & 1U;
  const std::uint32_t rounded = magnitude - 0x38000000U + 0xFFFU + even;
  return static_cast<std::uint16_t>(sign | rounded >> 13);
}

/// Samples of a rotated box. Output (column i, row j) covers n_x * n_y equal parts of
/// the box; each contributes a bilinear sample at its centre, each with the same weight. Positions
/// are in pixel centres, with kPositionBits fraction bits: faster than doubles, and alike
/// everywhere.
struct RotatedPlan {
  std::int64_t x, y;                        ///< of the centre of the box's first part
  std::int64_t x_per_column, y_per_column;  ///< from one part to the next along a row of outputs
  std::int64_t x_per_row, y_per_row;        ///< along a column of outputs
  std::int32_t n_x, n_y;                    ///< parts of an output along each side, at least 1
};

constexpr int kPositionBits = 32;

/// Where a position falls; beyond the image its last pixels repeat.
struct Neighbours {
  std::int32_t low, high;
  float fraction;  ///< weight of `high`
};

ALGAN_HD Neighbours neighbours(std::int64_t position, std::int32_t limit) {
  const auto below = static_cast<std::int32_t>(position >> kPositionBits);
  const std::int32_t last = limit - 1;
  const auto clamped = [last](std::int32_t i) { return i < 0 ? 0 : i > last ? last : i; };
  // The first 24 fraction bits: as many as a float holds.
  const auto bits = static_cast<std::int32_t>(position >> (kPositionBits - 24) & 0xFFFFFF);
  return Neighbours{clamped(below), clamped(below + 1),
                    static_cast<float>(bits) * (1.0F / 16777216.0F)};
}

ALGAN_HD float blend(float low, float high, float fraction) {
  return low * (1.0F - fraction) + high * fraction;
}

/// `pixel(y, x, c)` gives channel c as a float; `mean` gets, for each, the mean over the parts.
template <int kChannels, typename Pixel>
ALGAN_HD void rotated_pixel(const RotatedPlan& plan, std::int32_t j, std::int32_t i,
                            std::int32_t height, std::int32_t width, const Pixel& pixel,
                            float* mean) {
  float sum[kChannels] = {};
  for (std::int32_t v = 0; v < plan.n_y; ++v) {
    const std::int64_t row = std::int64_t{j} * plan.n_y + v;
    for (std::int32_t u = 0; u < plan.n_x; ++u) {
      const std::int64_t column = std::int64_t{i} * plan.n_x + u;
      const Neighbours x =
          neighbours(plan.x + column * plan.x_per_column + row * plan.x_per_row, width);
      const Neighbours y =
          neighbours(plan.y + column * plan.y_per_column + row * plan.y_per_row, height);
      for (int c = 0; c < kChannels; ++c) {
        const float upper = blend(pixel(y.low, x.low, c), pixel(y.low, x.high, c), x.fraction);
        const float lower = blend(pixel(y.high, x.low, c), pixel(y.high, x.high, c), x.fraction);
        sum[c] += blend(upper, lower, y.fraction);
      }
    }
  }
  const float unit = 1.0F / static_cast<float>(plan.n_x * plan.n_y);
  for (int c = 0; c < kChannels; ++c) mean[c] = sum[c] * unit;
}

}  // namespace algan
