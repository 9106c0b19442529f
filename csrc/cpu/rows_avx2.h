// Camera formats to bytes with AVX2: the operations of rows.h that compilers do not find by
// themselves.
#pragma once

#include <immintrin.h>

#include "algan/color_math.h"
#include "vec128.h"

namespace algan::cpu::ALGAN_PATH {

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

}  // namespace algan::cpu::ALGAN_PATH
