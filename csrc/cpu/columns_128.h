// Horizontal filters with vectors of 128 bits, four columns at a time, on the tables that
// axis_plan.h lays out for 256: columns 0 to 3 of a block of eight take the first halves of its
// vectors, columns 4 to 7 the second ones.
#pragma once

#include "axis_plan.h"
#include "ops_fixed.h"
#include "pairs_128.h"

namespace algan::cpu::ALGAN_PATH {

// Numbers of 16 bits from a column's half to the same half of the next column.
constexpr std::ptrdiff_t kNextColumn = 16;

// Four vectors, each [b g r -] of a column, to one of four columns for each channel.
ALGAN_HD void transpose_channels(const F32x4 in[4], F32x4 out[3]) {
  const F32x4 low01 = zip_low(in[0], in[1]);
  const F32x4 low23 = zip_low(in[2], in[3]);
  out[0] = low_halves(low01, low23);
  out[1] = high_halves(low01, low23);
  out[2] = low_halves(zip_high(in[0], in[1]), zip_high(in[2], in[3]));
}

// Columns i to i + 3 as [b g r -]. Both taps of a column are neighbouring bytes b g r b g r, or
// b g r - b g r - where pixels have four: spread them to 16-bit pairs (b b)(g g)(r r) and blend
// each pair. A tap of one pixel has right weight 0.
template <int kPixel>
ALGAN_HD void blend_four_columns(const AxisPlan& x, const std::uint8_t* source, std::int32_t i,
                                 F32x4 pixel[4]) {
  alignas(16) static constexpr std::uint8_t kPairs[16] = {
      0, 0x80, kPixel,     0x80, 1,    0x80, kPixel + 1, 0x80,
      2, 0x80, kPixel + 2, 0x80, 0x80, 0x80, 0x80,       0x80};
  const U8x16 pairs = load_bytes(kPairs);
  const std::int16_t* weights = x.blend_rgb + 8 * blend_place(i);
  for (int p = 0; p < 4; ++p) {
    const std::uint8_t* from = source + kPixel * static_cast<std::ptrdiff_t>(x.starts[i + p]);
    const I16x8 spread = as_i16(pick_bytes(load_bytes(from), pairs));
    pixel[p] = to_floats(dot_pairs(spread, load_i16(weights + p * kNextColumn)));
  }
}

ALGAN_HD void store_channels(const AxisPlan& x, std::int32_t i, const F32x4 pixel[4],
                             float* planes) {
  F32x4 channel[3];
  transpose_channels(pixel, channel);
  for (int c = 0; c < 3; ++c) store_floats(planes + c * x.padded_size + i, channel[c]);
}

template <int kPixel>
void blend_columns_rgb(const AxisPlan& x, const std::uint8_t* source, float* planes) {
  for (std::int32_t i = 0; i < x.padded_size; i += 4) {
    F32x4 pixel[4];
    blend_four_columns<kPixel>(x, source, i, pixel);
    store_channels(x, i, pixel, planes);
  }
}

inline void blend_columns_grey(const AxisPlan& x, const std::uint8_t* source, float* planes) {
  for (std::int32_t i = 0; i < x.padded_size; i += kColumnBlock) {
    const U16x8 pairs = load_pairs(source, x.starts + i);
    const std::int16_t* weights = x.blend_grey + 2 * static_cast<std::ptrdiff_t>(i);
    const I32x4 low = dot_pairs(widen_low(pairs), load_i16(weights));
    const I32x4 high = dot_pairs(widen_high(pairs), load_i16(weights + 8));
    store_floats(planes + i, to_floats(low));
    store_floats(planes + i + 4, to_floats(high));
  }
}

// Two pixels b g r b g r (and a rest that falls away) at a time, as in blend_four_columns. The
// number of steps is a constant where it is small, so that the compiler unrolls them.
template <int kPixel, int kSteps>
void sum_columns_rgb(const AxisPlan& x, const std::int16_t* row, float* planes) {
  alignas(16) static constexpr std::uint8_t kPairs[16] = {
      0, 1, 2 * kPixel,     2 * kPixel + 1, 2,    3,    2 * kPixel + 2, 2 * kPixel + 3,
      4, 5, 2 * kPixel + 4, 2 * kPixel + 5, 0x80, 0x80, 0x80,           0x80};
  const std::int32_t steps = kSteps > 0 ? kSteps : x.sum_steps;
  const U8x16 pairs = load_bytes(kPairs);
  for (std::int32_t i = 0; i < x.padded_size; i += 4) {
    const std::int16_t* weights = x.sums + sum_lane(x, i, 0);
    F32x4 pixel[4];
    for (int p = 0; p < 4; ++p) {
      const std::int16_t* from = row + kPixel * static_cast<std::ptrdiff_t>(x.starts[i + p]);
      I32x4 sum = zero_i32();
      for (std::int32_t k = 0; k < steps; ++k, weights += kNextColumn) {
        const auto* values = reinterpret_cast<const std::uint8_t*>(from + kPixel * kRgbTaps * k);
        const I16x8 spread = as_i16(pick_bytes(load_bytes(values), pairs));
        sum = add_i32(sum, dot_pairs(spread, load_i16(weights)));
      }
      pixel[p] = to_floats(sum);
    }
    store_channels(x, i, pixel, planes);
  }
}

template <int kPixel>
void sum_columns_rgb(const AxisPlan& x, const std::int16_t* row, float* planes) {
  with_steps(x.sum_steps,
             [&](auto steps) { sum_columns_rgb<kPixel, decltype(steps)::value>(x, row, planes); });
}

// Eight pixels at a time, added up at the end. Most taps are no wider than that.
template <int kSteps>
inline void sum_columns_grey(const AxisPlan& x, const std::int16_t* row, float* planes) {
  const std::int32_t steps = kSteps > 0 ? kSteps : x.sum_steps;
  for (std::int32_t i = 0; i < x.padded_size; i += 4) {
    const std::int16_t* weights = x.sums + sum_lane(x, i, 0);
    I32x4 sums[4];
    for (int p = 0; p < 4; ++p) {
      const std::int16_t* from = row + x.starts[i + p];
      I32x4 sum = zero_i32();
      for (std::int32_t k = 0; k < steps; ++k, weights += kNextColumn) {
        sum = add_i32(sum, dot_pairs(load_i16(from + kGreyTaps * k), load_i16(weights)));
      }
      sums[p] = sum;
    }
    const I32x4 columns =
        add_neighbours(add_neighbours(sums[0], sums[1]), add_neighbours(sums[2], sums[3]));
    store_floats(planes + i, to_floats(columns));
  }
}

inline void sum_columns_grey(const AxisPlan& x, const std::int16_t* row, float* planes) {
  x.sum_steps == 1 ? sum_columns_grey<1>(x, row, planes) : sum_columns_grey<0>(x, row, planes);
}

}  // namespace algan::cpu::ALGAN_PATH
