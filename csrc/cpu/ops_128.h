// The operations of ops_scalar.h with vectors of 128 bits, SSE4.1 or NEON: the arithmetic of
// ops_avx2.h, eight columns at a time in two vectors.
#pragma once

#include "bytes_128.h"
#include "columns_128.h"
#include "lanes_128.h"
#include "ops_fixed.h"
#include "prefetch.h"
#include "row_sum.h"

namespace algan::cpu::ALGAN_PATH {

// Sums of even and of odd bytes: `all` gathers even + 256 * odd modulo 2^16, `odd` the odd ones, so
// that the even ones are all - 256 * odd.
struct ByteSums {
  U16x8 all, odd;
};

// Sums start at what becomes the offset of 2^15 once store_sums has scaled them.
ALGAN_HD ByteSums no_sums(const RowSum& s) {
  const std::int32_t offset = 0x8000 >> s.bits;
  return ByteSums{splat_u16(static_cast<std::uint16_t>(offset * 257)),
                  splat_u16(static_cast<std::uint16_t>(offset))};
}

ALGAN_HD void add_whole(ByteSums& sums, U16x8 bytes) {
  sums.all = add_u16(sums.all, bytes);
  sums.odd = add_u16(sums.odd, shift_down_8(bytes));
}

// Sixteen sums from those of the whole rows and from the first and last row. The two weighted rows
// have one fraction bit more, cut off; their mean adds them and rounds it away.
ALGAN_HD void store_sums(const RowSum& s, const ByteSums& whole, U16x8 first, U16x8 last,
                         std::int16_t* row) {
  const U16x8 one = splat_u16(static_cast<std::uint16_t>(1 << s.bits));
  const U16x8 first_weight = splat_u16(s.first);
  const U16x8 last_weight = splat_u16(s.last);
  const U16x8 high_bytes = splat_u16(0xFF00);
  const auto weighted = [&](U16x8 a, U16x8 b) {
    return mean_up_u16(mul_high_u16(a, first_weight), mul_high_u16(b, last_weight));
  };
  const U16x8 whole_even = mul_low_u16(sub_u16(whole.all, shift_up_8(whole.odd)), one);
  const U16x8 whole_odd = mul_low_u16(whole.odd, one);
  const U16x8 even = add_u16(whole_even, weighted(shift_up_8(first), shift_up_8(last)));
  const U16x8 odd =
      add_u16(whole_odd, weighted(and_u16(first, high_bytes), and_u16(last, high_bytes)));
  store_i16(row, as_i16(zip_low_u16(even, odd)));
  store_i16(row + 8, as_i16(zip_high_u16(even, odd)));
}

// kVectors times sixteen bytes of all rows of a tap.
template <int kVectors>
ALGAN_HD void sum_block(const RowSum& s, const ByteSums& none, const std::uint8_t* source,
                        std::ptrdiff_t stride, std::int16_t* row) {
  const auto load = [&](std::int32_t k, int v) {
    return as_u16(load_bytes(source + stride * k + 16 * v));
  };
  prefetch_next_sum(s, source, stride);
  ByteSums whole[kVectors];
  for (ByteSums& sums : whole) sums = none;
  for (std::int32_t k = s.whole_begin; k < s.whole_end; ++k) {
    for (int v = 0; v < kVectors; ++v) add_whole(whole[v], load(k, v));
  }
  for (int v = 0; v < kVectors; ++v) {
    store_sums(s, whole[v], load(0, v), load(s.last_row, v), row + 16 * v);
  }
}

ALGAN_HD void append_pooled(const FinishRow& f, F32x4 value[5]) {
  value[4] = mul(add(add(value[0], value[1]), value[2]), splat_float(1.0F / 3.0F));
  value[3] = f.mean_is_fourth ? value[4] : larger(larger(value[0], value[1]), value[2]);
}

// Four columns of a finished row.
template <bool kTwoRows>
ALGAN_HD void finish_values(const FinishRow& f, std::int32_t i, F32x4 value[5]) {
  for (int c = 0; c < 3; ++c) {
    value[c] = mul_add(load_floats(f.upper[c] + i), splat_float(f.upper_weight[c]),
                       splat_float(f.bias[c]));
    if constexpr (kTwoRows) {
      value[c] = mul_add(load_floats(f.lower[c] + i), splat_float(f.lower_weight[c]), value[c]);
    }
  }
  append_pooled(f, value);
}

// Vectors of neighbouring columns; streamed ones make up whole cache lines, as a line streamed in
// parts leaves the core in parts.
template <bool kStream, int kVectors>
ALGAN_HD void store_block(const FinishRow& f, std::int32_t i, const F32x4 (&value)[kVectors][5]) {
  const auto store = [&](int plane) {
    float* to = f.out + plane * f.plane_floats + i;
    for (int v = 0; v < kVectors; ++v) {
      kStream ? stream_floats(to + 4 * v, value[v][plane])
              : store_floats(to + 4 * v, value[v][plane]);
    }
  };
  for (int c = 0; c < 3; ++c) store(c);
  if (f.planes > 3) store(3);
  if (f.planes == 5) store(4);
}

// The first `count` of eight columns.
ALGAN_HD void store_some(const FinishRow& f, std::int32_t i, std::int32_t count,
                         const F32x4 (&value)[2][5]) {
  for (std::int32_t p = 0; p < f.planes; ++p) {
    float block[kColumnBlock];
    store_floats(block, value[0][p]);
    store_floats(block + 4, value[1][p]);
    for (std::int32_t k = 0; k < count; ++k) f.out[p * f.plane_floats + i + k] = block[k];
  }
}

// Weights of two source rows with the scale of each channel, and the biases, in the order of a
// pixel's bytes.
struct PairWeights {
  F32x4 upper, lower, bias;
};

ALGAN_HD PairWeights pair_weights(const RowPair& rows, const FinishRow& f) {
  const auto pixel = [&](const float rgb[3], float weight) {
    const float lane[4] = {rgb[rows.red_plane] * weight, rgb[1] * weight,
                           rgb[2 - rows.red_plane] * weight, 0.0F};
    return load_floats(lane);
  };
  return PairWeights{pixel(f.upper_weight, rows.upper_weight),
                     pixel(f.upper_weight, rows.lower_weight), pixel(f.bias, 1.0F)};
}

// Four finished columns from two source rows that no other output row needs.
template <int kPixel>
ALGAN_HD void blend_four_taps(const AxisPlan& x, const RowPair& rows, const PairWeights& w,
                              const FinishRow& f, std::int32_t i, F32x4 value[5]) {
  F32x4 upper[4];
  F32x4 lower[4];
  blend_four_columns<kPixel>(x, rows.upper, i, upper);
  blend_four_columns<kPixel>(x, rows.lower, i, lower);
  F32x4 pixel[4];
  for (int p = 0; p < 4; ++p) {
    pixel[p] = mul_add(upper[p], w.upper, mul_add(lower[p], w.lower, w.bias));
  }
  F32x4 channel[3];
  transpose_channels(pixel, channel);
  const bool rgb = rows.red_plane == 0;
  value[0] = rgb ? channel[0] : channel[2];
  value[1] = channel[1];
  value[2] = rgb ? channel[2] : channel[0];
  append_pooled(f, value);
}

struct Ops128 : FixedPointOps {
  static void blend_columns(const AxisPlan& x, const std::uint8_t* source, std::int32_t pixel,
                            float* planes) {
    if (pixel == 1) return blend_columns_grey(x, source, planes);
    pixel == 3 ? blend_columns_rgb<3>(x, source, planes) : blend_columns_rgb<4>(x, source, planes);
  }

  static float sum_rows(const Tap& tap, double step, const std::uint8_t* source,
                        std::ptrdiff_t stride, std::int32_t bytes, void* sums) {
    auto* row = static_cast<std::int16_t*>(sums);
    const RowSum s = row_sum(tap, step);
    const ByteSums none = no_sums(s);
    if (bytes >= 32) {
      std::int32_t i = 0;
      for (; i + 64 <= bytes; i += 64) sum_block<4>(s, none, source + i, stride, row + i);
      if (i + 32 <= bytes) sum_block<2>(s, none, source + i, stride, row + i);
      sum_block<2>(s, none, source + bytes - 32, stride, row + bytes - 32);
    } else {
      for (std::int32_t i = 0; i < bytes; ++i) row[i] = sum_byte(s, source + i, stride);
    }
    return tap.unit / static_cast<float>(1 << s.bits);
  }

  static void sum_columns(const AxisPlan& x, const void* sums, std::int32_t pixel, float* planes) {
    const auto* row = static_cast<const std::int16_t*>(sums);
    if (pixel == 1) return sum_columns_grey(x, row, planes);
    pixel == 3 ? sum_columns_rgb<3>(x, row, planes) : sum_columns_rgb<4>(x, row, planes);
  }

  // The last columns are written twice, with the same numbers.
  template <bool kTwoRows>
  static void finish_row(const FinishRow& given) {
    const FinishRow f =
        given;  // a copy: a store of a float might change what a reference refers to
    if (f.size < kColumnBlock) return ScalarOps::finish_row<kTwoRows>(f);
    std::int32_t i = 0;
    if (f.stream) {
      for (; i < f.size; i += 2 * kColumnBlock) {
        F32x4 line[4][5];
        for (int v = 0; v < 4; ++v) finish_values<kTwoRows>(f, i + 4 * v, line[v]);
        store_block<true>(f, i, line);
      }
      return;
    }
    for (; i < f.size; i += kColumnBlock) {
      const std::int32_t from = i + kColumnBlock <= f.size ? i : f.size - kColumnBlock;
      F32x4 block[2][5];
      for (int v = 0; v < 2; ++v) finish_values<kTwoRows>(f, from + 4 * v, block[v]);
      store_block<false>(f, from, block);
    }
  }

  static void drop_fourth(const std::uint8_t* pixels, std::uint8_t* out) {
    drop_fourth_128(pixels, out);
  }

  using Lanes = Lanes128;
  static constexpr bool kPlanar = true;
  static constexpr bool kBlendsRowPairs = true;

  static void finish_row_pair(const AxisPlan& x, const RowPair& rows, const FinishRow& f) {
    rows.pixel == 3 ? finish_pair<3>(x, rows, f) : finish_pair<4>(x, rows, f);
  }

  // Structs by value, as in finish_row.
  template <int kPixel>
  static void finish_pair(const AxisPlan x, const RowPair rows, const FinishRow f) {
    const PairWeights weights = pair_weights(rows, f);
    std::int32_t i = 0;
    if (f.stream) {
      for (; i < f.size; i += 2 * kColumnBlock) {
        F32x4 line[4][5];
        for (int v = 0; v < 4; ++v)
          blend_four_taps<kPixel>(x, rows, weights, f, i + 4 * v, line[v]);
        store_block<true>(f, i, line);
      }
      return;
    }
    const Prefetch prefetch = prefetch_for(x, kPixel);
    for (; i < f.size; i += kColumnBlock) {
      F32x4 block[2][5];
      for (int v = 0; v < 2; ++v) blend_four_taps<kPixel>(x, rows, weights, f, i + 4 * v, block[v]);
      if (i + kColumnBlock > f.size) return store_some(f, i, f.size - i, block);
      prefetch_pair(x, rows, f, prefetch, i);
      store_block<false>(f, i, block);
    }
  }

  static void finish_box() { finish_streams(); }
};

}  // namespace algan::cpu::ALGAN_PATH
