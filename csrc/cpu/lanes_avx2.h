// Sixteen lanes of 16 bits: what planar_bayer.h, planar_yuv.h and planar.h are written in, function
// by function what lanes_128.h has.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "algan/host_device.h"

namespace algan::cpu::ALGAN_PATH {

struct Lanes256 {
  using V = __m256i;
  static constexpr std::int32_t kLanes = 16;

  static V load(const std::uint8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static V widen(const std::uint8_t* from) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static V splat(std::uint16_t value) {
    return _mm256_set1_epi16(static_cast<std::int16_t>(value));
  }
  static V low_byte(V v) { return _mm256_and_si256(v, splat(0xFF)); }
  static V high_byte(V v) { return _mm256_srli_epi16(v, 8); }
  static V flip(V a, V b) { return _mm256_xor_si256(a, b); }
  static V add(V a, V b) { return _mm256_add_epi16(a, b); }
  static V sub(V a, V b) { return _mm256_sub_epi16(a, b); }
  static V add_saturated(V a, V b) { return _mm256_adds_epu16(a, b); }
  static V sub_saturated(V a, V b) { return _mm256_subs_epu16(a, b); }
  static V mean_up(V a, V b) { return _mm256_avg_epu16(a, b); }
  static V smaller_signed(V a, V b) { return _mm256_min_epi16(a, b); }
  static V mul_low(V a, V b) { return _mm256_mullo_epi16(a, b); }
  static V mul_high(V a, V b) { return _mm256_mulhi_epu16(a, b); }
  static V mul_round_signed(V a, V b) { return _mm256_mulhrs_epi16(a, b); }
  template <int kBits>
  static V up(V v) {
    return _mm256_slli_epi16(v, kBits);
  }
  template <int kBits>
  static V down(V v) {
    return _mm256_srli_epi16(v, kBits);
  }
  // Ones where a lane's lowest bit is set.
  static V odd_lanes(V v) { return _mm256_cmpeq_epi16(_mm256_and_si256(v, splat(1)), splat(1)); }
  static V select(V mask, V yes, V no) { return _mm256_blendv_epi8(no, yes, mask); }

  // The lower halves of sixteen numbers.
  static V low_words(const std::int32_t* from) {
    const auto* at = reinterpret_cast<const std::uint8_t*>(from);
    V first, last;
    split_quads(at, first, last);
    return first;
  }

  // Sixteen groups of four bytes: the first two of each, and the last two.
  static void split_quads(const std::uint8_t* from, V& first, V& last) {
    const V low = load(from);
    const V high = load(from + 32);
    const V zero = _mm256_setzero_si256();
    const auto join = [](V a, V b) {
      return _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xD8);
    };
    first = join(_mm256_blend_epi16(low, zero, 0xAA), _mm256_blend_epi16(high, zero, 0xAA));
    last = join(_mm256_srli_epi32(low, 16), _mm256_srli_epi32(high, 16));
  }
  // Even and odd pixels, side by side again.
  static void store_zipped(std::int16_t* to, V even, V odd) {
    const V low = _mm256_unpacklo_epi16(even, odd);
    const V high = _mm256_unpackhi_epi16(even, odd);
    auto* at = reinterpret_cast<__m256i*>(to);
    _mm256_storeu_si256(at, _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256(at + 1, _mm256_permute2x128_si256(low, high, 0x31));
  }
  // 32 pixels r g b r g b ... of bytes. Each byte of a colour has one place in the three parts of a
  // half's 48 bytes: one shuffle brings all to theirs, and parts are made of every third byte.
  static void store_interleaved(std::uint8_t* to, V r, V g, V b) {
    const auto twice = [](__m128i v) { return _mm256_broadcastsi128_si256(v); };
    const V place_r = twice(_mm_setr_epi8(0, 11, 6, 1, 12, 7, 2, 13, 8, 3, 14, 9, 4, 15, 10, 5));
    const V place_g = twice(_mm_setr_epi8(5, 0, 11, 6, 1, 12, 7, 2, 13, 8, 3, 14, 9, 4, 15, 10));
    const V place_b = twice(_mm_setr_epi8(10, 5, 0, 11, 6, 1, 12, 7, 2, 13, 8, 3, 14, 9, 4, 15));
    const V third0 = twice(_mm_setr_epi8(-1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1));
    const V third1 = twice(_mm_setr_epi8(0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0));
    r = _mm256_shuffle_epi8(r, place_r);
    g = _mm256_shuffle_epi8(g, place_g);
    b = _mm256_shuffle_epi8(b, place_b);
    const auto part = [&](V first, V second, V third) {
      return select(third0, first, select(third1, second, third));
    };
    const V part0 = part(r, g, b);
    const V part1 = part(g, b, r);
    const V part2 = part(b, r, g);
    auto* at = reinterpret_cast<__m256i*>(to);
    _mm256_storeu_si256(at, _mm256_permute2x128_si256(part0, part1, 0x20));
    _mm256_storeu_si256(at + 1, _mm256_permute2x128_si256(part2, part0, 0x30));
    _mm256_storeu_si256(at + 2, _mm256_permute2x128_si256(part1, part2, 0x31));
  }
  // left * weights[2 i] + right * weights[2 i + 1] for each lane.
  static void blend(V left, V right, const std::int16_t* weights, float* to) {
    const V low = _mm256_unpacklo_epi16(left, right);
    const V high = _mm256_unpackhi_epi16(left, right);
    const auto* w = reinterpret_cast<const __m256i*>(weights);
    const V a =
        _mm256_madd_epi16(_mm256_permute2x128_si256(low, high, 0x20), _mm256_loadu_si256(w));
    const V b =
        _mm256_madd_epi16(_mm256_permute2x128_si256(low, high, 0x31), _mm256_loadu_si256(w + 1));
    _mm256_storeu_ps(to, _mm256_cvtepi32_ps(a));
    _mm256_storeu_ps(to + 8, _mm256_cvtepi32_ps(b));
  }
};

}  // namespace algan::cpu::ALGAN_PATH
