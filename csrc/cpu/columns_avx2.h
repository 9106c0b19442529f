// Horizontal filters with AVX2, eight columns at a time.
#pragma once

#include <immintrin.h>

#include "axis_plan.h"
#include "ops_fixed.h"
#include "pairs_128.h"

namespace algan::cpu::ALGAN_PATH {

// Four vectors, each [b g r - | b g r -] of columns (p, p+4), to one vector of eight columns for
// each channel.
ALGAN_HD void transpose_channels(const __m256i in[4], __m256i out[3]) {
  const __m256i low01 = _mm256_unpacklo_epi32(in[0], in[1]);
  const __m256i low23 = _mm256_unpacklo_epi32(in[2], in[3]);
  const __m256i high01 = _mm256_unpackhi_epi32(in[0], in[1]);
  const __m256i high23 = _mm256_unpackhi_epi32(in[2], in[3]);
  out[0] = _mm256_unpacklo_epi64(low01, low23);
  out[1] = _mm256_unpackhi_epi64(low01, low23);
  out[2] = _mm256_unpacklo_epi64(high01, high23);
}

// Columns p and p + 4 of the block at i, in a half each. Both taps of a column are neighbouring
// bytes b g r b g r, or b g r - b g r - where pixels have four: spread them to 16-bit pairs (b b)(g
// g)(r r) and let pmaddwd blend each pair. A tap of one pixel has right weight 0.
template <int kPixel>
ALGAN_HD __m256i blend_two_columns(const AxisPlan& x, const std::uint8_t* source, std::int32_t i,
                                   int p) {
  constexpr char k = kPixel;
  const __m256i pairs =
      _mm256_setr_epi8(0, -1, k, -1, 1, -1, k + 1, -1, 2, -1, k + 2, -1, -1, -1, -1, -1,  //
                       0, -1, k, -1, 1, -1, k + 1, -1, 2, -1, k + 2, -1, -1, -1, -1, -1);
  const auto load = [&](std::int32_t column) {
    const std::uint8_t* from = source + kPixel * static_cast<std::ptrdiff_t>(x.starts[column]);
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  };
  const __m256i bytes =
      _mm256_inserti128_si256(_mm256_castsi128_si256(load(i + p)), load(i + p + 4), 1);
  const auto* weights = reinterpret_cast<const __m256i*>(x.blend_rgb) + i / 2 + p;
  return _mm256_madd_epi16(_mm256_shuffle_epi8(bytes, pairs), _mm256_loadu_si256(weights));
}

template <int kPixel>
void blend_columns_rgb(const AxisPlan& x, const std::uint8_t* source, float* planes) {
  for (std::int32_t i = 0; i < x.padded_size; i += kColumnBlock) {
    __m256i blended[4];
    for (int p = 0; p < 4; ++p) blended[p] = blend_two_columns<kPixel>(x, source, i, p);
    __m256i channel[3];
    transpose_channels(blended, channel);
    for (int c = 0; c < 3; ++c) {
      _mm256_store_ps(planes + c * x.padded_size + i, _mm256_cvtepi32_ps(channel[c]));
    }
  }
}

inline void blend_columns_grey(const AxisPlan& x, const std::uint8_t* source, float* planes) {
  const auto* weights = reinterpret_cast<const __m256i*>(x.blend_grey);
  for (std::int32_t i = 0; i < x.padded_size; i += kColumnBlock) {
    const __m256i pairs = _mm256_cvtepu8_epi16(load_pairs(source, x.starts + i));
    const __m256i blended = _mm256_madd_epi16(pairs, _mm256_loadu_si256(weights++));
    _mm256_store_ps(planes + i, _mm256_cvtepi32_ps(blended));
  }
}

ALGAN_HD __m256i two_halves(const std::int16_t* low, const std::int16_t* high) {
  return _mm256_inserti128_si256(
      _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low))),
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(high)), 1);
}

// Two pixels b g r b g r (and a rest that falls away) in each half, as in blend_two_columns.
// The number of steps is a constant where it is small, so that the compiler unrolls them.
template <int kPixel, int kSteps>
void sum_columns_rgb(const AxisPlan& x, const std::int16_t* row, float* planes) {
  const std::int32_t steps = kSteps > 0 ? kSteps : x.sum_steps;
  constexpr char k2 = 2 * kPixel;
  const __m256i pairs = _mm256_setr_epi8(
      0, 1, k2, k2 + 1, 2, 3, k2 + 2, k2 + 3, 4, 5, k2 + 4, k2 + 5, -1, -1, -1, -1,  //
      0, 1, k2, k2 + 1, 2, 3, k2 + 2, k2 + 3, 4, 5, k2 + 4, k2 + 5, -1, -1, -1, -1);
  const auto* weights = reinterpret_cast<const __m256i*>(x.sums);
  for (std::int32_t i = 0; i < x.padded_size; i += kColumnBlock) {
    __m256i sums[4];
    for (int p = 0; p < 4; ++p) {
      const std::int16_t* low = row + kPixel * static_cast<std::ptrdiff_t>(x.starts[i + p]);
      const std::int16_t* high = row + kPixel * static_cast<std::ptrdiff_t>(x.starts[i + p + 4]);
      __m256i sum = _mm256_setzero_si256();
      for (std::int32_t k = 0; k < steps; ++k) {
        const __m256i values = _mm256_shuffle_epi8(
            two_halves(low + kPixel * kRgbTaps * k, high + kPixel * kRgbTaps * k), pairs);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(values, _mm256_loadu_si256(weights++)));
      }
      sums[p] = sum;
    }
    __m256i channel[3];
    transpose_channels(sums, channel);
    for (int c = 0; c < 3; ++c) {
      _mm256_store_ps(planes + c * x.padded_size + i, _mm256_cvtepi32_ps(channel[c]));
    }
  }
}

template <int kPixel>
void sum_columns_rgb(const AxisPlan& x, const std::int16_t* row, float* planes) {
  with_steps(x.sum_steps,
             [&](auto steps) { sum_columns_rgb<kPixel, decltype(steps)::value>(x, row, planes); });
}

// Eight pixels in each half, added up at the end.
template <int kSteps>
void sum_columns_grey(const AxisPlan& x, const std::int16_t* row, float* planes) {
  const std::int32_t steps = kSteps > 0 ? kSteps : x.sum_steps;
  const auto* weights = reinterpret_cast<const __m256i*>(x.sums);
  for (std::int32_t i = 0; i < x.padded_size; i += kColumnBlock) {
    __m256i sums[4];
    for (int p = 0; p < 4; ++p) {
      const std::int16_t* low = row + x.starts[i + p];
      const std::int16_t* high = row + x.starts[i + p + 4];
      __m256i sum = _mm256_setzero_si256();
      for (std::int32_t k = 0; k < steps; ++k) {
        const __m256i values = two_halves(low + kGreyTaps * k, high + kGreyTaps * k);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(values, _mm256_loadu_si256(weights++)));
      }
      sums[p] = sum;
    }
    const __m256i columns =
        _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
    _mm256_store_ps(planes + i, _mm256_cvtepi32_ps(columns));
  }
}

inline void sum_columns_grey(const AxisPlan& x, const std::int16_t* row, float* planes) {
  with_steps(x.sum_steps,
             [&](auto steps) { sum_columns_grey<decltype(steps)::value>(x, row, planes); });
}

}  // namespace algan::cpu::ALGAN_PATH
