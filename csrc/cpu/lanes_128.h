// Eight lanes of 16 bits with SSE4.1 or NEON, function by function what lanes_avx2.h has.
#pragma once

#include "pairs_128.h"

namespace algan::cpu::ALGAN_PATH {

struct Lanes128 {
  using V = U16x8;
  static constexpr std::int32_t kLanes = 8;

  static V load(const std::uint8_t* from) { return as_u16(load_bytes(from)); }
  static V widen(const std::uint8_t* from) { return widen_eight(from); }
  static V splat(std::uint16_t value) { return splat_u16(value); }
  static V low_byte(V v) { return and_u16(v, splat_u16(0xFF)); }
  static V high_byte(V v) { return shift_down_8(v); }
  static V flip(V a, V b) { return xor_u16(a, b); }
  static V add(V a, V b) { return add_u16(a, b); }
  static V sub(V a, V b) { return sub_u16(a, b); }
  static V add_saturated(V a, V b) { return add_saturated_u16(a, b); }
  static V sub_saturated(V a, V b) { return sub_saturated_u16(a, b); }
  static V mean_up(V a, V b) { return mean_up_u16(a, b); }
  static V smaller_signed(V a, V b) { return as_u16(smaller_i16(as_i16(a), as_i16(b))); }
  static V mul_low(V a, V b) { return mul_low_u16(a, b); }
  static V mul_high(V a, V b) { return mul_high_u16(a, b); }
  static V mul_round_signed(V a, V b) { return as_u16(mul_round(as_i16(a), as_i16(b))); }
  template <int kBits>
  static V up(V v) {
    return as_u16(shift_up<kBits>(as_i16(v)));
  }
  template <int kBits>
  static V down(V v) {
    return shift_down_u16<kBits>(v);
  }
  // Ones where a lane's lowest bit is set.
  static V odd_lanes(V v) { return sub_u16(splat_u16(0), and_u16(v, splat_u16(1))); }
  static V select(V mask, V yes, V no) { return select_u16(mask, yes, no); }

  // The lower halves of eight numbers.
  static V low_words(const std::int32_t* from) {
    V first, last;
    split_quads(reinterpret_cast<const std::uint8_t*>(from), first, last);
    return first;
  }
  // Eight groups of four bytes: the first two of each, and the last two.
  static void split_quads(const std::uint8_t* from, V& first, V& last) {
    const V low = load(from);
    const V high = load(from + 16);
    first = even_words(low, high);
    last = odd_words(low, high);
  }
  // Even and odd pixels, side by side again.
  static void store_zipped(std::int16_t* to, V even, V odd) {
    store_i16(to, as_i16(zip_low_u16(even, odd)));
    store_i16(to + 8, as_i16(zip_high_u16(even, odd)));
  }
  // Sixteen pixels r g b r g b ... of bytes.
  static void store_interleaved(std::uint8_t* to, V r, V g, V b) {
    ALGAN_PATH::store_interleaved(to, as_u8(r), as_u8(g), as_u8(b));
  }
  // left * weights[2 i] + right * weights[2 i + 1] for each lane.
  static void blend(V left, V right, const std::int16_t* weights, float* to) {
    const auto dot = [](V pairs, const std::int16_t* w) {
      return to_floats(dot_pairs(as_i16(pairs), load_i16(w)));
    };
    store_floats(to, dot(zip_low_u16(left, right), weights));
    store_floats(to + 4, dot(zip_high_u16(left, right), weights + 8));
  }
};

}  // namespace algan::cpu::ALGAN_PATH
