// YUV to bytes with vectors of 128 bits: yuv_to_rgb of color_math.h.
#pragma once

#include "algan/color_math.h"
#include "vec128.h"

namespace algan::cpu::ALGAN_PATH {

// Red, green and blue of eight pixels, with 6 fraction bits.
struct FixedColours {
  I16x8 r, g, b;
};

// y, u and v of the pixels, each in 16 bits.
ALGAN_HD FixedColours yuv_eight(I16x8 y, I16x8 u, I16x8 v, const YuvFactors& f) {
  const auto times = [](I16x8 a, std::int16_t factor) { return mul_round(a, splat_i16(factor)); };
  const I16x8 black = splat_i16(f.y_offset);
  const I16x8 above_black = sub_i16(larger_i16(y, black), black);
  const I16x8 luma = add_saturated(times(shift_up<7>(above_black), f.y), splat_i16(32));
  const I16x8 u_part = shift_up<8>(sub_i16(u, splat_i16(128)));
  const I16x8 v_part = shift_up<8>(sub_i16(v, splat_i16(128)));
  return FixedColours{
      add_saturated(luma, times(v_part, f.v_to_red)),
      sub_i16(sub_i16(luma, times(u_part, f.u_to_green)), times(v_part, f.v_to_green)),
      add_saturated(luma, times(u_part, f.u_to_blue))};
}

// As ScalarOps::yuv_block.
inline void yuv_block_128(const std::uint8_t* y, const std::uint8_t* u, const std::uint8_t* v,
                          const YuvFactors f, std::uint8_t* out) {
  const auto bytes = [](I16x8 low, I16x8 high) {
    return clamp_to_bytes(shift_down<6>(low), shift_down<6>(high));
  };
  const auto convert = [&](std::int32_t i, U8x16 u_twice, U8x16 v_twice) {
    const U16x8 luma = as_u16(load_bytes(y + i));
    const U16x8 u_pairs = as_u16(u_twice);
    const U16x8 v_pairs = as_u16(v_twice);
    const FixedColours low = yuv_eight(widen_low(luma), widen_low(u_pairs), widen_low(v_pairs), f);
    const FixedColours high =
        yuv_eight(widen_high(luma), widen_high(u_pairs), widen_high(v_pairs), f);
    store_interleaved(out + 3 * i, bytes(low.r, high.r), bytes(low.g, high.g),
                      bytes(low.b, high.b));
  };
  for (std::int32_t i = 0; i < 64; i += 32) {
    const U8x16 u16 = load_bytes(u + i / 2);
    const U8x16 v16 = load_bytes(v + i / 2);
    convert(i, twice_low(u16), twice_low(v16));
    convert(i + 16, twice_high(u16), twice_high(v16));
  }
}

// As ScalarOps::split_pairs.
inline void split_pairs_128(const std::uint8_t* pairs, std::uint8_t* even, std::uint8_t* odd) {
  for (std::int32_t i = 0; i < 32; i += 16) {
    const U8x16 low = load_bytes(pairs + 2 * i);
    const U8x16 high = load_bytes(pairs + 2 * i + 16);
    store_bytes(even + i, even_bytes(low, high));
    store_bytes(odd + i, odd_bytes(low, high));
  }
}

}  // namespace algan::cpu::ALGAN_PATH
