// Vectors of 128 bits with NEON as every aarch64 has it, function by function what vec128_sse4.h
// has.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#include "algan/host_device.h"

namespace algan::cpu::ALGAN_PATH {

using U8x16 = uint8x16_t;
using U16x8 = uint16x8_t;
using I16x8 = int16x8_t;
using I32x4 = int32x4_t;
using F32x4 = float32x4_t;

ALGAN_HD U8x16 load_bytes(const std::uint8_t* from) { return vld1q_u8(from); }
ALGAN_HD void store_bytes(std::uint8_t* to, U8x16 v) { vst1q_u8(to, v); }
ALGAN_HD I16x8 load_i16(const std::int16_t* from) { return vld1q_s16(from); }
ALGAN_HD void store_i16(std::int16_t* to, I16x8 v) { vst1q_s16(to, v); }
ALGAN_HD U8x16 as_u8(U16x8 v) { return vreinterpretq_u8_u16(v); }
ALGAN_HD U16x8 as_u16(U8x16 v) { return vreinterpretq_u16_u8(v); }
ALGAN_HD U16x8 as_u16(I16x8 v) { return vreinterpretq_u16_s16(v); }
ALGAN_HD I16x8 as_i16(U8x16 v) { return vreinterpretq_s16_u8(v); }
ALGAN_HD I16x8 as_i16(U16x8 v) { return vreinterpretq_s16_u16(v); }

// Byte order[i] for each i, or 0 where that is 0x80.
ALGAN_HD U8x16 pick_bytes(U8x16 v, U8x16 order) { return vqtbl1q_u8(v, order); }

template <int kPlace>
ALGAN_HD U16x8 insert_pair(U16x8 v, const std::uint8_t* from) {
  std::uint16_t pair = 0;
  std::memcpy(&pair, from, sizeof(pair));
  return vsetq_lane_u16(pair, v, kPlace);
}
ALGAN_HD I16x8 widen_low(U16x8 bytes) {
  return vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(vreinterpretq_u8_u16(bytes))));
}
ALGAN_HD I16x8 widen_high(U16x8 bytes) {
  return vreinterpretq_s16_u16(vmovl_high_u8(vreinterpretq_u8_u16(bytes)));
}

ALGAN_HD U16x8 splat_u16(std::uint16_t value) { return vdupq_n_u16(value); }
ALGAN_HD U16x8 add_u16(U16x8 a, U16x8 b) { return vaddq_u16(a, b); }
ALGAN_HD U16x8 sub_u16(U16x8 a, U16x8 b) { return vsubq_u16(a, b); }
ALGAN_HD U16x8 and_u16(U16x8 a, U16x8 b) { return vandq_u16(a, b); }
ALGAN_HD U16x8 shift_up_8(U16x8 v) { return vshlq_n_u16(v, 8); }
ALGAN_HD U16x8 shift_down_8(U16x8 v) { return vshrq_n_u16(v, 8); }
ALGAN_HD U16x8 mul_low_u16(U16x8 a, U16x8 b) { return vmulq_u16(a, b); }
ALGAN_HD U16x8 mul_high_u16(U16x8 a, U16x8 b) {
  const uint32x4_t low = vmull_u16(vget_low_u16(a), vget_low_u16(b));
  const uint32x4_t high = vmull_high_u16(a, b);
  return vuzp2q_u16(vreinterpretq_u16_u32(low), vreinterpretq_u16_u32(high));
}
// (a + b + 1) / 2
ALGAN_HD U16x8 mean_up_u16(U16x8 a, U16x8 b) { return vrhaddq_u16(a, b); }
ALGAN_HD U16x8 zip_low_u16(U16x8 a, U16x8 b) { return vzip1q_u16(a, b); }
ALGAN_HD U16x8 zip_high_u16(U16x8 a, U16x8 b) { return vzip2q_u16(a, b); }

ALGAN_HD U16x8 xor_u16(U16x8 a, U16x8 b) { return veorq_u16(a, b); }
ALGAN_HD U16x8 add_saturated_u16(U16x8 a, U16x8 b) { return vqaddq_u16(a, b); }
ALGAN_HD U16x8 sub_saturated_u16(U16x8 a, U16x8 b) { return vqsubq_u16(a, b); }
template <int kBits>
ALGAN_HD U16x8 shift_down_u16(U16x8 v) {
  return vshrq_n_u16(v, kBits);
}
ALGAN_HD U16x8 select_u16(U16x8 mask, U16x8 yes, U16x8 no) { return vbslq_u16(mask, yes, no); }
// Eight bytes, each in 16 bits.
ALGAN_HD U16x8 widen_eight(const std::uint8_t* from) { return vmovl_u8(vld1_u8(from)); }
// The even, and the odd, of sixteen words.
ALGAN_HD U16x8 even_words(U16x8 low, U16x8 high) { return vuzp1q_u16(low, high); }
ALGAN_HD U16x8 odd_words(U16x8 low, U16x8 high) { return vuzp2q_u16(low, high); }

ALGAN_HD I16x8 smaller_i16(I16x8 a, I16x8 b) { return vminq_s16(a, b); }
// a * b / 2^15, rounded; not for both -2^15.
ALGAN_HD I16x8 mul_round(I16x8 a, I16x8 b) { return vqrdmulhq_s16(a, b); }
template <int kBits>
ALGAN_HD I16x8 shift_up(I16x8 v) {
  return vshlq_n_s16(v, kBits);
}

// Products, each added to its neighbour.
ALGAN_HD I32x4 dot_pairs(I16x8 a, I16x8 b) {
  return vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b));
}
ALGAN_HD I32x4 zero_i32() { return vdupq_n_s32(0); }
ALGAN_HD I32x4 add_i32(I32x4 a, I32x4 b) { return vaddq_s32(a, b); }
// Neighbours of a, then of b, added up.
ALGAN_HD I32x4 add_neighbours(I32x4 a, I32x4 b) { return vpaddq_s32(a, b); }
ALGAN_HD F32x4 to_floats(I32x4 v) { return vcvtq_f32_s32(v); }

ALGAN_HD F32x4 load_floats(const float* from) { return vld1q_f32(from); }
ALGAN_HD void store_floats(float* to, F32x4 v) { vst1q_f32(to, v); }
// Processors of this kind notice by themselves that whole lines are written.
ALGAN_HD void stream_floats(float* to, F32x4 v) { vst1q_f32(to, v); }
ALGAN_HD void finish_streams() {}
ALGAN_HD F32x4 splat_float(float value) { return vdupq_n_f32(value); }
ALGAN_HD F32x4 add(F32x4 a, F32x4 b) { return vaddq_f32(a, b); }
ALGAN_HD F32x4 mul(F32x4 a, F32x4 b) { return vmulq_f32(a, b); }
ALGAN_HD F32x4 mul_add(F32x4 a, F32x4 b, F32x4 c) { return vfmaq_f32(c, a, b); }
ALGAN_HD F32x4 larger(F32x4 a, F32x4 b) { return vmaxq_f32(a, b); }
ALGAN_HD F32x4 zip_low(F32x4 a, F32x4 b) { return vzip1q_f32(a, b); }
ALGAN_HD F32x4 zip_high(F32x4 a, F32x4 b) { return vzip2q_f32(a, b); }
ALGAN_HD F32x4 low_halves(F32x4 a, F32x4 b) {
  return vcombine_f32(vget_low_f32(a), vget_low_f32(b));
}
ALGAN_HD F32x4 high_halves(F32x4 a, F32x4 b) {
  return vcombine_f32(vget_high_f32(a), vget_high_f32(b));
}

// Sixteen pixels r g b r g b ...
ALGAN_HD void store_interleaved(std::uint8_t* to, U8x16 r, U8x16 g, U8x16 b) {
  vst3q_u8(to, uint8x16x3_t{{r, g, b}});
}

}  // namespace algan::cpu::ALGAN_PATH
