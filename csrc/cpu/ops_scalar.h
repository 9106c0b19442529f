// Plain C++: the reference that every other path is compared with, and the path of machines
// without a faster one. The five operations below are what a path consists of.
#pragma once

#include "algan/color_math.h"
#include "box_job.h"

namespace algan::cpu::ALGAN_PATH {

struct FinishRow {
  const float* upper[3];  // RGB
  const float* lower[3];  // RGB; read only if kTwoRows
  float upper_weight[3];  // with scale and gain
  float lower_weight[3];
  float bias[3];
  float* out;  // first plane, this row
  std::ptrdiff_t plane_floats;
  std::ptrdiff_t next_row;  // floats from this row of outputs to the next
  std::int32_t size;
  std::int32_t planes;  // 3; 4 with the maximum, or with the mean if mean_is_fourth; 5 with both
  bool mean_is_fourth;
  bool stream;
};

// Pixels that a turned box samples from, `pixel` bytes apart; one byte is grey.
struct RotatedSource {
  const std::uint8_t* data;
  std::ptrdiff_t stride;
  std::int32_t height, width, pixel;
};

// Two source rows and what they weigh, and those of the next output row, to be prefetched.
struct RowPair {
  const std::uint8_t* upper;
  const std::uint8_t* lower;
  const std::uint8_t* next_upper;
  const std::uint8_t* next_lower;
  float upper_weight;
  float lower_weight;
  std::int32_t red_plane;
  std::int32_t pixel;
};

// Of pixels so many bytes apart: a fourth byte does not count.
ALGAN_HD std::int32_t channels_of(std::int32_t pixel) { return pixel == 1 ? 1 : 3; }

template <bool kTwoRows>
ALGAN_HD void finish_pixel(const FinishRow& f, std::int32_t i) {
  float value[3];
  for (int c = 0; c < 3; ++c) {
    value[c] = normalise(f.upper[c][i], f.upper_weight[c], f.bias[c]);
    if constexpr (kTwoRows) value[c] += f.lower[c][i] * f.lower_weight[c];
    f.out[c * f.plane_floats + i] = value[c];
  }
  if (f.planes == 3) return;
  const float mean = mean3(value[0], value[1], value[2]);
  f.out[3 * f.plane_floats + i] = f.mean_is_fourth ? mean : max3(value[0], value[1], value[2]);
  if (f.planes == 5) f.out[4 * f.plane_floats + i] = mean;
}

struct ScalarOps {
  // Factor that blend_columns leaves in its result.
  static constexpr float kBlendGain = 1.0F;

  // One source row, blended horizontally: planes[channel][x] = kBlendGain * value.
  static void blend_columns(const AxisPlan& x, const std::uint8_t* source, std::int32_t pixel,
                            float* planes) {
    const std::int32_t channels = channels_of(pixel);
    for (std::int32_t i = 0; i < x.size; ++i) {
      const Tap& tap = x.taps[i];
      const std::uint8_t* left = source + static_cast<std::ptrdiff_t>(tap.start) * pixel;
      const std::uint8_t* right = left + static_cast<std::ptrdiff_t>(tap.count - 1) * pixel;
      const float left_weight = tap.unit * tap.first;
      const float right_weight = tap.unit * tap.last;
      for (std::int32_t c = 0; c < channels; ++c) {
        planes[c * x.padded_size + i] =
            left_weight * static_cast<float>(left[c]) + right_weight * static_cast<float>(right[c]);
      }
    }
  }

  // Whether sum_rows can filter this axis at all.
  static bool can_sum_rows(const AxisPlan&) { return true; }

  // What sum_columns leaves in its result: value = (result * column_gain(x) + kSumOffset) * gain,
  // gain being what sum_rows returned.
  static constexpr float kSumOffset = 0.0F;
  static float column_gain(const AxisPlan&) { return 1.0F; }

  // The rows of one vertical tap, added up, one number for each byte; returns the gain.
  static float sum_rows(const Tap& tap, double, const std::uint8_t* source, std::ptrdiff_t stride,
                        std::int32_t bytes, void* sums) {
    auto* row = static_cast<float*>(sums);
    const std::uint8_t* last = source + stride * (tap.count - 1);
    for (std::int32_t i = 0; i < bytes; ++i) {
      row[i] = tap.first * static_cast<float>(source[i]) + tap.last * static_cast<float>(last[i]);
    }
    for (std::int32_t k = 1; k < tap.count - 1; ++k) {
      const std::uint8_t* middle = source + stride * k;
      for (std::int32_t i = 0; i < bytes; ++i) row[i] += static_cast<float>(middle[i]);
    }
    return tap.unit;
  }

  // A vertically filtered row, filtered horizontally: planes[channel][x].
  static void sum_columns(const AxisPlan& x, const void* sums, std::int32_t pixel, float* planes) {
    const std::int32_t channels = channels_of(pixel);
    const auto* row = static_cast<const float*>(sums);
    for (std::int32_t i = 0; i < x.size; ++i) {
      const Tap& tap = x.taps[i];
      const float* first = row + static_cast<std::ptrdiff_t>(tap.start) * pixel;
      const float* last = first + static_cast<std::ptrdiff_t>(tap.count - 1) * pixel;
      for (std::int32_t c = 0; c < channels; ++c) {
        float sum = tap.first * first[c] + tap.last * last[c];
        for (const float* p = first + pixel; p < last; p += pixel) sum += p[c];
        planes[c * x.padded_size + i] = sum * tap.unit;
      }
    }
  }

  // Blend two rows or take one, normalise, append maximum and mean.
  template <bool kTwoRows>
  static void finish_row(const FinishRow& f) {
    for (std::int32_t i = 0; i < f.size; ++i) finish_pixel<kTwoRows>(f, i);
  }

  // Row j of a turned box: planes[channel][x].
  static void sample_rotated(const RotatedPlan& plan, const RotatedSource& source, std::int32_t j,
                             std::int32_t size, std::int32_t padded_size, float* planes) {
    const std::int32_t channels = channels_of(source.pixel);
    const auto value = [&](std::int32_t y, std::int32_t x, int c) {
      return static_cast<float>(source.data[source.stride * y + source.pixel * x + c]);
    };
    for (std::int32_t i = 0; i < size; ++i) {
      float mean[3];
      channels == 3 ? rotated_pixel<3>(plan, j, i, source.height, source.width, value, mean)
                    : rotated_pixel<1>(plan, j, i, source.height, source.width, value, mean);
      for (std::int32_t c = 0; c < channels; ++c) planes[c * padded_size + i] = mean[c];
    }
  }

  // 64 pixels of four bytes without the fourth; and three planes of 64, pixel by pixel. Both may
  // write kOverread bytes more.
  static void drop_fourth(const std::uint8_t* pixels, std::uint8_t* out) {
    for (std::int32_t i = 0; i < 64; ++i) {
      for (std::int32_t c = 0; c < 3; ++c) out[3 * i + c] = pixels[4 * i + c];
    }
  }
  static void interleave(const std::uint8_t* r, const std::uint8_t* g, const std::uint8_t* b,
                         std::uint8_t* out) {
    for (std::int32_t i = 0; i < 64; ++i) {
      out[3 * i] = r[i];
      out[3 * i + 1] = g[i];
      out[3 * i + 2] = b[i];
    }
  }

  // 64 pixels, of which two neighbours share a colour: 32 of `u` and `v`.
  static void yuv_block(const std::uint8_t* y, const std::uint8_t* u, const std::uint8_t* v,
                        const YuvFactors f, std::uint8_t* out) {
    for (std::int32_t i = 0; i < 64; ++i) yuv_to_rgb(f, y[i], u[i / 2], v[i / 2], out + 3 * i);
  }

  // 32 pairs of bytes, apart.
  static void split_pairs(const std::uint8_t* pairs, std::uint8_t* even, std::uint8_t* odd) {
    for (std::int32_t i = 0; i < 32; ++i) {
      even[i] = pairs[2 * i];
      odd[i] = pairs[2 * i + 1];
    }
  }

  // 64 pixels of two bytes.
  static void grey16_block(const std::uint8_t* pixels, float white, std::uint8_t* out) {
    for (std::int32_t i = 0; i < 64; ++i) {
      const auto value = static_cast<std::uint16_t>(pixels[2 * i] | pixels[2 * i + 1] << 8);
      out[i] = grey16_to_byte(value, white);
    }
  }

  static void to_half(const float* from, std::int32_t count, std::uint16_t* to) {
    for (std::int32_t i = 0; i < count; ++i) to[i] = half_bits(from[i]);
  }
  static void to_bytes(const float* from, std::int32_t count, std::uint8_t* to) {
    for (std::int32_t i = 0; i < count; ++i) to[i] = round_byte(from[i]);
  }

  // Whether the path has Lanes, in which planar_sums.h and planar_blend.h convert Bayer and YUV.
  static constexpr bool kPlanar = false;

  // Whether finish_row_pair(x, RowPair, FinishRow) does, for colour, all that blend_columns and
  // finish_row do without storing rows in between; f.upper_weight then holds scale and gain only.
  static constexpr bool kBlendsRowPairs = false;

  // After the last row of a crop.
  static void finish_box() {}
};

}  // namespace algan::cpu::ALGAN_PATH
