// The operations that gain from AVX-512 (F, BW, DQ, VL), sixteen columns at a time; the others
// are those of ops_avx2.h.
#pragma once

#include "ops_avx2.h"

namespace algan::cpu::ALGAN_PATH {

// As sum_block of ops_avx2.h, for 64 bytes.
ALGAN_HD void sum_wide_block(const RowSum& s, const std::uint8_t* source, std::ptrdiff_t stride,
                             std::int16_t* row) {
  const auto load = [&](std::int32_t k) { return _mm512_loadu_si512(source + stride * k); };
  prefetch_next_sum(s, source, stride);
  __m512i all = _mm512_setzero_si512();
  __m512i odd = _mm512_setzero_si512();
  for (std::int32_t k = s.whole_begin; k < s.whole_end; ++k) {
    const __m512i bytes = load(k);
    all = _mm512_add_epi16(all, bytes);
    odd = _mm512_add_epi16(odd, _mm512_srli_epi16(bytes, 8));
  }
  const __m512i one = _mm512_set1_epi16(static_cast<std::int16_t>(1 << s.bits));
  __m512i even = _mm512_mullo_epi16(_mm512_sub_epi16(all, _mm512_slli_epi16(odd, 8)), one);
  odd = _mm512_mullo_epi16(odd, one);

  const __m512i first = load(0);
  const __m512i last = load(s.last_row);
  const __m512i first_weight = _mm512_set1_epi16(static_cast<std::int16_t>(s.first));
  const __m512i last_weight = _mm512_set1_epi16(static_cast<std::int16_t>(s.last));
  const __m512i high_bytes = _mm512_set1_epi16(static_cast<std::int16_t>(0xFF00));
  even = _mm512_add_epi16(
      even, _mm512_avg_epu16(_mm512_mulhi_epu16(_mm512_slli_epi16(first, 8), first_weight),
                             _mm512_mulhi_epu16(_mm512_slli_epi16(last, 8), last_weight)));
  odd = _mm512_add_epi16(
      odd, _mm512_avg_epu16(_mm512_mulhi_epu16(_mm512_and_si512(first, high_bytes), first_weight),
                            _mm512_mulhi_epu16(_mm512_and_si512(last, high_bytes), last_weight)));

  const __m512i offset = _mm512_set1_epi16(static_cast<std::int16_t>(0x8000));
  even = _mm512_xor_si512(even, offset);
  odd = _mm512_xor_si512(odd, offset);
  const __m512i low = _mm512_unpacklo_epi16(even, odd);   // first half of each lane's bytes
  const __m512i high = _mm512_unpackhi_epi16(even, odd);  // second half
  _mm512_storeu_si512(
      row, _mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high));
  _mm512_storeu_si512(row + 32, _mm512_permutex2var_epi64(
                                    low, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), high));
}

// Up to sixteen columns of a finished row; the others are neither read nor written.
template <bool kTwoRows, bool kStream>
ALGAN_HD void finish_wide_block(const FinishRow& f, std::int32_t i, __mmask16 columns) {
  const auto store = [&](int plane, __m512 value) {
    float* to = f.out + plane * f.plane_floats + i;
    if constexpr (kStream) {
      _mm512_stream_ps(to, value);
    } else {
      _mm512_mask_storeu_ps(to, columns, value);
    }
  };
  __m512 value[3];
  for (int c = 0; c < 3; ++c) {
    value[c] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(columns, f.upper[c] + i),
                               _mm512_set1_ps(f.upper_weight[c]), _mm512_set1_ps(f.bias[c]));
    if constexpr (kTwoRows) {
      value[c] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(columns, f.lower[c] + i),
                                 _mm512_set1_ps(f.lower_weight[c]), value[c]);
    }
    store(c, value[c]);
  }
  if (f.planes == 3) return;
  const __m512 mean = _mm512_mul_ps(_mm512_add_ps(_mm512_add_ps(value[0], value[1]), value[2]),
                                    _mm512_set1_ps(1.0F / 3.0F));
  store(3, f.mean_is_fourth ? mean : _mm512_max_ps(_mm512_max_ps(value[0], value[1]), value[2]));
  if (f.planes == 5) store(4, mean);
}

ALGAN_HD __mmask16 first_columns(std::int32_t count) {
  return count >= 16 ? __mmask16{0xFFFF} : static_cast<__mmask16>((1U << count) - 1U);
}

struct Avx512Ops : Avx2Ops {
  static float sum_rows(const Tap& tap, double step, const std::uint8_t* source,
                        std::ptrdiff_t stride, std::int32_t bytes, void* sums) {
    constexpr std::int32_t kBlock = 64;
    if (bytes < kBlock) return Avx2Ops::sum_rows(tap, step, source, stride, bytes, sums);
    auto* row = static_cast<std::int16_t*>(sums);
    const RowSum s = row_sum(tap, step);
    for (std::int32_t i = 0; i + kBlock <= bytes; i += kBlock) {
      sum_wide_block(s, source + i, stride, row + i);
    }
    sum_wide_block(s, source + bytes - kBlock, stride, row + bytes - kBlock);
    return tap.unit / static_cast<float>(1 << s.bits);
  }

  template <bool kTwoRows>
  static void finish_row(const FinishRow& given) {
    const FinishRow f = given;  // as in ops_avx2.h
    constexpr std::int32_t kWidth = 16;
    constexpr __mmask16 kAll = 0xFFFF;
    std::int32_t i = 0;
    if (f.stream) {
      for (; i < f.size; i += kWidth) finish_wide_block<kTwoRows, true>(f, i, kAll);
    } else {
      for (; i + kWidth <= f.size; i += kWidth) finish_wide_block<kTwoRows, false>(f, i, kAll);
    }
    if (i < f.size) finish_wide_block<kTwoRows, false>(f, i, first_columns(f.size - i));
  }
};

}  // namespace algan::cpu::ALGAN_PATH
