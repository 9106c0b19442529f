// The five operations of ops_scalar.h with AVX2 and FMA, eight columns at a time.
#pragma once

#include <immintrin.h>

#include "bytes_128.h"
#include "columns_avx2.h"
#include "lanes_avx2.h"
#include "ops_fixed.h"
#include "prefetch.h"
#include "row_sum.h"
#include "rows_avx2.h"

namespace algan::cpu::ALGAN_PATH {

// Bytes are summed as 16-bit pairs: `all` gathers even + 256 * odd modulo 2^16, `odd` the odd ones,
// so that the even ones are all - 256 * odd. Three instructions for each 32 bytes of a whole row.
// The two weighted rows have one fraction bit more, cut off; pavgw adds them and rounds it away.
ALGAN_HD void sum_block(const RowSum& s, const std::uint8_t* source, std::ptrdiff_t stride,
                        std::int16_t* row) {
  const auto load = [&](std::int32_t k) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source + stride * k));
  };
  prefetch_next_sum(s, source, stride);
  __m256i all = _mm256_setzero_si256();
  __m256i odd = _mm256_setzero_si256();
  for (std::int32_t k = s.whole_begin; k < s.whole_end; ++k) {
    const __m256i bytes = load(k);
    all = _mm256_add_epi16(all, bytes);
    odd = _mm256_add_epi16(odd, _mm256_srli_epi16(bytes, 8));
  }
  const __m256i one = _mm256_set1_epi16(static_cast<std::int16_t>(1 << s.bits));
  __m256i even = _mm256_mullo_epi16(_mm256_sub_epi16(all, _mm256_slli_epi16(odd, 8)), one);
  odd = _mm256_mullo_epi16(odd, one);

  const __m256i first = load(0);
  const __m256i last = load(s.last_row);
  const __m256i first_weight = _mm256_set1_epi16(static_cast<std::int16_t>(s.first));
  const __m256i last_weight = _mm256_set1_epi16(static_cast<std::int16_t>(s.last));
  const __m256i high_bytes = _mm256_set1_epi16(static_cast<std::int16_t>(0xFF00));
  even = _mm256_add_epi16(
      even, _mm256_avg_epu16(_mm256_mulhi_epu16(_mm256_slli_epi16(first, 8), first_weight),
                             _mm256_mulhi_epu16(_mm256_slli_epi16(last, 8), last_weight)));
  odd = _mm256_add_epi16(
      odd, _mm256_avg_epu16(_mm256_mulhi_epu16(_mm256_and_si256(first, high_bytes), first_weight),
                            _mm256_mulhi_epu16(_mm256_and_si256(last, high_bytes), last_weight)));

  const __m256i offset = _mm256_set1_epi16(static_cast<std::int16_t>(0x8000));
  even = _mm256_xor_si256(even, offset);
  odd = _mm256_xor_si256(odd, offset);
  const __m256i low = _mm256_unpacklo_epi16(even, odd);   // bytes 0..7 and 16..23
  const __m256i high = _mm256_unpackhi_epi16(even, odd);  // bytes 8..15 and 24..31
  auto* to = reinterpret_cast<__m256i*>(row);
  _mm256_storeu_si256(to, _mm256_permute2x128_si256(low, high, 0x20));
  _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(low, high, 0x31));
}

ALGAN_HD void append_pooled(const FinishRow& f, __m256 value[5]) {
  value[4] = _mm256_mul_ps(_mm256_add_ps(_mm256_add_ps(value[0], value[1]), value[2]),
                           _mm256_set1_ps(1.0F / 3.0F));
  value[3] =
      f.mean_is_fourth ? value[4] : _mm256_max_ps(_mm256_max_ps(value[0], value[1]), value[2]);
}

// Eight columns of a finished row.
template <bool kTwoRows>
ALGAN_HD void finish_values(const FinishRow& f, std::int32_t i, __m256 value[5]) {
  for (int c = 0; c < 3; ++c) {
    value[c] = _mm256_fmadd_ps(_mm256_loadu_ps(f.upper[c] + i), _mm256_set1_ps(f.upper_weight[c]),
                               _mm256_set1_ps(f.bias[c]));
    if constexpr (kTwoRows) {
      value[c] = _mm256_fmadd_ps(_mm256_loadu_ps(f.lower[c] + i), _mm256_set1_ps(f.lower_weight[c]),
                                 value[c]);
    }
  }
  append_pooled(f, value);
}

ALGAN_HD void store_block(const FinishRow& f, std::int32_t i, const __m256 value[5]) {
  // Not a loop over f.planes: the values would have to go through memory to be indexed.
  const auto store = [&](int p) { _mm256_storeu_ps(f.out + p * f.plane_floats + i, value[p]); };
  for (int c = 0; c < 3; ++c) store(c);
  if (f.planes > 3) store(3);
  if (f.planes == 5) store(4);
}

// Both halves of a cache line together: a line streamed in parts leaves the core in parts.
ALGAN_HD void stream_line(const FinishRow& f, std::int32_t i, const __m256 left[5],
                          const __m256 right[5]) {
  const auto stream = [&](int p) {
    _mm256_stream_ps(f.out + p * f.plane_floats + i, left[p]);
    _mm256_stream_ps(f.out + p * f.plane_floats + i + kColumnBlock, right[p]);
  };
  for (int c = 0; c < 3; ++c) stream(c);
  if (f.planes > 3) stream(3);
  if (f.planes == 5) stream(4);
}

// Weights of two source rows with the scale of each channel, and the biases, in the order of a
// pixel's bytes.
struct PairWeights {
  __m256 upper, lower, bias;
};

ALGAN_HD PairWeights pair_weights(const RowPair& rows, const FinishRow& f) {
  const auto pixel = [&](const float rgb[3], float weight) {
    const __m128 lane = _mm_setr_ps(rgb[rows.red_plane] * weight, rgb[1] * weight,
                                    rgb[2 - rows.red_plane] * weight, 0.0F);
    return _mm256_set_m128(lane, lane);
  };
  return PairWeights{pixel(f.upper_weight, rows.upper_weight),
                     pixel(f.upper_weight, rows.lower_weight), pixel(f.bias, 1.0F)};
}

// Eight finished columns from two source rows that no other output row needs.
template <int kPixel>
ALGAN_HD void blend_four_taps(const AxisPlan& x, const RowPair& rows, const PairWeights& w,
                              const FinishRow& f, std::int32_t i, __m256 value[5]) {
  __m256i blended[4];
  for (int p = 0; p < 4; ++p) {
    const __m256 upper = _mm256_cvtepi32_ps(blend_two_columns<kPixel>(x, rows.upper, i, p));
    const __m256 lower = _mm256_cvtepi32_ps(blend_two_columns<kPixel>(x, rows.lower, i, p));
    blended[p] = _mm256_castps_si256(
        _mm256_fmadd_ps(upper, w.upper, _mm256_fmadd_ps(lower, w.lower, w.bias)));
  }
  __m256i channel[3];
  transpose_channels(blended, channel);
  const bool rgb = rows.red_plane == 0;
  for (int c = 0; c < 3; ++c) value[c] = _mm256_castsi256_ps(rgb ? channel[c] : channel[2 - c]);
  append_pooled(f, value);
}

struct Avx2Ops : FixedPointOps {
  static void blend_columns(const AxisPlan& x, const std::uint8_t* source, std::int32_t pixel,
                            float* planes) {
    if (pixel == 1) return blend_columns_grey(x, source, planes);
    pixel == 3 ? blend_columns_rgb<3>(x, source, planes) : blend_columns_rgb<4>(x, source, planes);
  }

  static float sum_rows(const Tap& tap, double step, const std::uint8_t* source,
                        std::ptrdiff_t stride, std::int32_t bytes, void* sums) {
    auto* row = static_cast<std::int16_t*>(sums);
    constexpr std::int32_t kBlock = 32;
    const RowSum s = row_sum(tap, step);
    if (bytes >= kBlock) {
      for (std::int32_t i = 0; i + kBlock <= bytes; i += kBlock) {
        sum_block(s, source + i, stride, row + i);
      }
      sum_block(s, source + bytes - kBlock, stride, row + bytes - kBlock);
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
    const FinishRow f = given;  // a copy: a store might change what a reference refers to
    if (f.size < kColumnBlock) return ScalarOps::finish_row<kTwoRows>(f);
    __m256 value[5];
    std::int32_t i = 0;
    if (f.stream) {
      for (; i < f.size; i += 2 * kColumnBlock) {
        __m256 right[5];
        finish_values<kTwoRows>(f, i, value);
        finish_values<kTwoRows>(f, i + kColumnBlock, right);
        stream_line(f, i, value, right);
      }
      return;
    }
    for (; i < f.size; i += kColumnBlock) {
      const std::int32_t from = i + kColumnBlock <= f.size ? i : f.size - kColumnBlock;
      finish_values<kTwoRows>(f, from, value);
      store_block(f, from, value);
    }
  }

  static void drop_fourth(const std::uint8_t* pixels, std::uint8_t* out) {
    drop_fourth_128(pixels, out);
  }

  static void grey16_block(const std::uint8_t* pixels, float white, std::uint8_t* out) {
    for (std::int32_t i = 0; i < 64; i += 16) grey16_sixteen(pixels + 2 * i, white, out + i);
  }

  static void to_half(const float* from, std::int32_t count, std::uint16_t* to) {
    std::int32_t i = 0;
    for (; i + 8 <= count; i += 8) {
      const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), half);
    }
    ScalarOps::to_half(from + i, count - i, to + i);
  }

  using Lanes = Lanes256;
  static constexpr bool kPlanar = true;
  static constexpr bool kBlendsRowPairs = true;

  // Structs by value: through references, every store of a float might change them.
  static void finish_row_pair(const AxisPlan& x, const RowPair& rows, const FinishRow& f) {
    rows.pixel == 3 ? finish_pair<3>(x, rows, f) : finish_pair<4>(x, rows, f);
  }

  template <int kPixel>
  static void finish_pair(const AxisPlan x, const RowPair rows, const FinishRow f) {
    const PairWeights weights = pair_weights(rows, f);
    __m256 value[5];
    std::int32_t i = 0;
    if (f.stream) {
      for (; i < f.size; i += 2 * kColumnBlock) {
        __m256 right[5];
        blend_four_taps<kPixel>(x, rows, weights, f, i, value);
        blend_four_taps<kPixel>(x, rows, weights, f, i + kColumnBlock, right);
        stream_line(f, i, value, right);
      }
      return;
    }
    const Prefetch prefetch = prefetch_for(x, kPixel);
    for (; i + kColumnBlock <= f.size; i += kColumnBlock) {
      blend_four_taps<kPixel>(x, rows, weights, f, i, value);
      prefetch_pair(x, rows, f, prefetch, i);
      store_block(f, i, value);
    }
    if (i == f.size) return;
    blend_four_taps<kPixel>(x, rows, weights, f, i, value);
    const std::ptrdiff_t planes = f.planes;
    for (std::ptrdiff_t p = 0; p < planes; ++p) {
      alignas(32) float last[kColumnBlock];
      _mm256_store_ps(last, value[p]);
      for (std::int32_t k = i; k < f.size; ++k) f.out[p * f.plane_floats + k] = last[k - i];
    }
  }

  // Streaming stores are ordered with later ones only by a fence.
  static void finish_box() { _mm_sfence(); }
};

}  // namespace algan::cpu::ALGAN_PATH
