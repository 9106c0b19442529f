// Orders of bytes in vectors of 128 bits.
#pragma once

#include "vec128.h"

namespace algan::cpu::ALGAN_PATH {

// As ScalarOps::drop_fourth. What is written past four pixels is overwritten by the next ones.
inline void drop_fourth_128(const std::uint8_t* pixels, std::uint8_t* out) {
  alignas(16) static constexpr std::uint8_t kOrder[16] = {0,  1,  2,  4,  5,    6,    8,    9,
                                                          10, 12, 13, 14, 0x80, 0x80, 0x80, 0x80};
  const U8x16 order = load_bytes(kOrder);
  for (std::int32_t i = 0; i < 64; i += 4) {
    store_bytes(out + 3 * i, pick_bytes(load_bytes(pixels + 4 * i), order));
  }
}

}  // namespace algan::cpu::ALGAN_PATH
