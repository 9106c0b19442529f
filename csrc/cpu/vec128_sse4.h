// Vectors of 128 bits with SSE4.1 and SSSE3, function by function what vec128_neon.h has. All
// vectors of integers are one type here; their names say what a function takes them for.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "algan/host_device.h"

namespace algan::cpu::ALGAN_PATH {

using U8x16 = __m128i;
using U16x8 = __m128i;
using I16x8 = __m128i;
using I32x4 = __m128i;
using F32x4 = __m128;

ALGAN_HD U8x16 load_bytes(const std::uint8_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}
ALGAN_HD void store_bytes(std::uint8_t* to, U8x16 v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), v);
}
ALGAN_HD I16x8 load_i16(const std::int16_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}
ALGAN_HD void store_i16(std::int16_t* to, I16x8 v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), v);
}
ALGAN_HD U8x16 as_u8(__m128i v) { return v; }
ALGAN_HD U16x8 as_u16(__m128i v) { return v; }
ALGAN_HD I16x8 as_i16(__m128i v) { return v; }

// Byte order[i] for each i, or 0 where that is 0x80.
ALGAN_HD U8x16 pick_bytes(U8x16 v, U8x16 order) { return _mm_shuffle_epi8(v, order); }

template <int kPlace>
ALGAN_HD U16x8 insert_pair(U16x8 v, const std::uint8_t* from) {
  std::uint16_t pair = 0;
  std::memcpy(&pair, from, sizeof(pair));
  return _mm_insert_epi16(v, pair, kPlace);
}
ALGAN_HD I16x8 widen_low(U16x8 bytes) { return _mm_cvtepu8_epi16(bytes); }
ALGAN_HD I16x8 widen_high(U16x8 bytes) { return _mm_unpackhi_epi8(bytes, _mm_setzero_si128()); }

ALGAN_HD U16x8 splat_u16(std::uint16_t value) {
  return _mm_set1_epi16(static_cast<std::int16_t>(value));
}
ALGAN_HD U16x8 add_u16(U16x8 a, U16x8 b) { return _mm_add_epi16(a, b); }
ALGAN_HD U16x8 sub_u16(U16x8 a, U16x8 b) { return _mm_sub_epi16(a, b); }
ALGAN_HD U16x8 and_u16(U16x8 a, U16x8 b) { return _mm_and_si128(a, b); }
ALGAN_HD U16x8 shift_up_8(U16x8 v) { return _mm_slli_epi16(v, 8); }
ALGAN_HD U16x8 shift_down_8(U16x8 v) { return _mm_srli_epi16(v, 8); }
ALGAN_HD U16x8 mul_low_u16(U16x8 a, U16x8 b) { return _mm_mullo_epi16(a, b); }
ALGAN_HD U16x8 mul_high_u16(U16x8 a, U16x8 b) { return _mm_mulhi_epu16(a, b); }
// (a + b + 1) / 2
ALGAN_HD U16x8 mean_up_u16(U16x8 a, U16x8 b) { return _mm_avg_epu16(a, b); }
ALGAN_HD U16x8 zip_low_u16(U16x8 a, U16x8 b) { return _mm_unpacklo_epi16(a, b); }
ALGAN_HD U16x8 zip_high_u16(U16x8 a, U16x8 b) { return _mm_unpackhi_epi16(a, b); }

ALGAN_HD U16x8 xor_u16(U16x8 a, U16x8 b) { return _mm_xor_si128(a, b); }
ALGAN_HD U16x8 add_saturated_u16(U16x8 a, U16x8 b) { return _mm_adds_epu16(a, b); }
ALGAN_HD U16x8 sub_saturated_u16(U16x8 a, U16x8 b) { return _mm_subs_epu16(a, b); }
template <int kBits>
ALGAN_HD U16x8 shift_down_u16(U16x8 v) {
  return _mm_srli_epi16(v, kBits);
}
ALGAN_HD U16x8 select_u16(U16x8 mask, U16x8 yes, U16x8 no) {
  return _mm_blendv_epi8(no, yes, mask);
}
// Eight bytes, each in 16 bits.
ALGAN_HD U16x8 widen_eight(const std::uint8_t* from) {
  return _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
}
// The even, and the odd, of sixteen words.
ALGAN_HD U16x8 even_words(U16x8 low, U16x8 high) {
  const __m128i zero = _mm_setzero_si128();
  return _mm_packus_epi32(_mm_blend_epi16(low, zero, 0xAA), _mm_blend_epi16(high, zero, 0xAA));
}
ALGAN_HD U16x8 odd_words(U16x8 low, U16x8 high) {
  return _mm_packus_epi32(_mm_srli_epi32(low, 16), _mm_srli_epi32(high, 16));
}

ALGAN_HD I16x8 smaller_i16(I16x8 a, I16x8 b) { return _mm_min_epi16(a, b); }
// a * b / 2^15, rounded; not for both -2^15.
ALGAN_HD I16x8 mul_round(I16x8 a, I16x8 b) { return _mm_mulhrs_epi16(a, b); }
template <int kBits>
ALGAN_HD I16x8 shift_up(I16x8 v) {
  return _mm_slli_epi16(v, kBits);
}

// Products, each added to its neighbour.
ALGAN_HD I32x4 dot_pairs(I16x8 a, I16x8 b) { return _mm_madd_epi16(a, b); }
ALGAN_HD I32x4 zero_i32() { return _mm_setzero_si128(); }
ALGAN_HD I32x4 add_i32(I32x4 a, I32x4 b) { return _mm_add_epi32(a, b); }
// Neighbours of a, then of b, added up.
ALGAN_HD I32x4 add_neighbours(I32x4 a, I32x4 b) { return _mm_hadd_epi32(a, b); }
ALGAN_HD F32x4 to_floats(I32x4 v) { return _mm_cvtepi32_ps(v); }

ALGAN_HD F32x4 load_floats(const float* from) { return _mm_loadu_ps(from); }
ALGAN_HD void store_floats(float* to, F32x4 v) { _mm_storeu_ps(to, v); }
// Past the cache; `to` is aligned to 16 bytes.
ALGAN_HD void stream_floats(float* to, F32x4 v) { _mm_stream_ps(to, v); }
// Streaming stores are ordered with later ones only by a fence.
ALGAN_HD void finish_streams() { _mm_sfence(); }
ALGAN_HD F32x4 splat_float(float value) { return _mm_set1_ps(value); }
ALGAN_HD F32x4 add(F32x4 a, F32x4 b) { return _mm_add_ps(a, b); }
ALGAN_HD F32x4 mul(F32x4 a, F32x4 b) { return _mm_mul_ps(a, b); }
ALGAN_HD F32x4 mul_add(F32x4 a, F32x4 b, F32x4 c) { return add(mul(a, b), c); }
ALGAN_HD F32x4 larger(F32x4 a, F32x4 b) { return _mm_max_ps(a, b); }
ALGAN_HD F32x4 zip_low(F32x4 a, F32x4 b) { return _mm_unpacklo_ps(a, b); }
ALGAN_HD F32x4 zip_high(F32x4 a, F32x4 b) { return _mm_unpackhi_ps(a, b); }
ALGAN_HD F32x4 low_halves(F32x4 a, F32x4 b) { return _mm_movelh_ps(a, b); }
ALGAN_HD F32x4 high_halves(F32x4 a, F32x4 b) { return _mm_movehl_ps(b, a); }

// For each 16 of 48 bytes and each colour: which pixel goes to which byte; 0x80 leaves a zero.
struct InterleaveOrder {
  alignas(16) std::uint8_t pixel[3][3][16];
  constexpr InterleaveOrder() : pixel{} {
    for (int byte = 0; byte < 48; ++byte) {
      for (int c = 0; c < 3; ++c) {
        pixel[byte / 16][c][byte % 16] =
            byte % 3 == c ? static_cast<std::uint8_t>(byte / 3) : std::uint8_t{0x80};
      }
    }
  }
};

// Sixteen pixels r g b r g b ...
ALGAN_HD void store_interleaved(std::uint8_t* to, U8x16 r, U8x16 g, U8x16 b) {
  static constexpr InterleaveOrder kOrder;
  const U8x16 colour[3] = {r, g, b};
  for (int part = 0; part < 3; ++part) {
    U8x16 bytes = _mm_setzero_si128();
    for (int c = 0; c < 3; ++c) {
      bytes = _mm_or_si128(bytes, pick_bytes(colour[c], load_bytes(kOrder.pixel[part][c])));
    }
    store_bytes(to + 16 * part, bytes);
  }
}

}  // namespace algan::cpu::ALGAN_PATH
