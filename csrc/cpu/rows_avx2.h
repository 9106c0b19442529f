// Camera formats to bytes with AVX2: the operations of rows.h that compilers do not find by
// themselves.
#pragma once

#include <immintrin.h>

#include "algan/color_math.h"
#include "vec128.h"

namespace algan::cpu::ALGAN_PATH {

// yuv_to_rgb of color_math.h for sixteen pixels that share eight colours.
ALGAN_HD void yuv_sixteen(const std::uint8_t* y, const std::uint8_t* u, const std::uint8_t* v,
                          const YuvFactors& f, std::uint8_t* out) {
  const auto colours = [](const std::uint8_t* from) {
    const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    // Twice each in the upper byte of 16 bits, as (c - 128) << 8.
    const __m256i twice = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(eight, eight));
    return _mm256_slli_epi16(_mm256_sub_epi16(twice, _mm256_set1_epi16(128)), 8);
  };
  const auto times = [](__m256i a, std::int16_t factor) {
    return _mm256_mulhrs_epi16(a, _mm256_set1_epi16(factor));
  };
  const auto bytes = [](__m256i fixed) {
    const __m256i whole = _mm256_srai_epi16(fixed, 6);
    return _mm_packus_epi16(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  };
  const __m256i above_black =
      _mm256_subs_epu16(_mm256_cvtepu8_epi16(load_bytes(y)), _mm256_set1_epi16(f.y_offset));
  const __m256i luma =
      _mm256_add_epi16(times(_mm256_slli_epi16(above_black, 7), f.y), _mm256_set1_epi16(32));
  const __m256i u_part = colours(u);
  const __m256i v_part = colours(v);
  const __m256i green = _mm256_sub_epi16(_mm256_sub_epi16(luma, times(u_part, f.u_to_green)),
                                         times(v_part, f.v_to_green));
  store_interleaved(out, bytes(_mm256_adds_epi16(luma, times(v_part, f.v_to_red))), bytes(green),
                    bytes(_mm256_adds_epi16(luma, times(u_part, f.u_to_blue))));
}

// grey16_to_byte of color_math.h for sixteen pixels.
ALGAN_HD void grey16_sixteen(const std::uint8_t* pixels, float white, std::uint8_t* out) {
  const __m256i most = _mm256_set1_epi16(static_cast<std::int16_t>(static_cast<int>(white)));
  const __m256i values =
      _mm256_min_epu16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(pixels)), most);
  const auto scaled = [&](__m128i eight) {
    const __m256 v = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(eight));
    const __m256 share =
        _mm256_div_ps(_mm256_mul_ps(v, _mm256_set1_ps(255.0F)), _mm256_set1_ps(white));
    return _mm256_cvttps_epi32(_mm256_add_ps(share, _mm256_set1_ps(0.5F)));
  };
  const __m256i words =
      _mm256_permute4x64_epi64(_mm256_packus_epi32(scaled(_mm256_castsi256_si128(values)),
                                                   scaled(_mm256_extracti128_si256(values, 1))),
                               0xD8);
  store_bytes(out,
              _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

// 32 neighbouring pairs, apart.
ALGAN_HD void split_thirty_two(const std::uint8_t* pairs, std::uint8_t* even, std::uint8_t* odd) {
  const auto* from = reinterpret_cast<const __m256i*>(pairs);
  const __m256i low = _mm256_loadu_si256(from);
  const __m256i high = _mm256_loadu_si256(from + 1);
  const __m256i byte = _mm256_set1_epi16(0xFF);
  const auto join = [](__m256i a, __m256i b) {
    return _mm256_permute4x64_epi64(_mm256_packus_epi16(a, b), 0xD8);
  };
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(even),
                      join(_mm256_and_si256(low, byte), _mm256_and_si256(high, byte)));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(odd),
                      join(_mm256_srli_epi16(low, 8), _mm256_srli_epi16(high, 8)));
}

}  // namespace algan::cpu::ALGAN_PATH
