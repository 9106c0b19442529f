// What both taps of grey columns read.
#pragma once

#include "vec128.h"

namespace algan::cpu::ALGAN_PATH {

// Two neighbouring bytes for each of eight columns. One by one is faster than a gather on
// processors that split gathers up.
ALGAN_HD U16x8 load_pairs(const std::uint8_t* source, const std::int32_t* starts) {
  U16x8 pairs = splat_u16(0);
  pairs = insert_pair<0>(pairs, source + starts[0]);
  pairs = insert_pair<1>(pairs, source + starts[1]);
  pairs = insert_pair<2>(pairs, source + starts[2]);
  pairs = insert_pair<3>(pairs, source + starts[3]);
  pairs = insert_pair<4>(pairs, source + starts[4]);
  pairs = insert_pair<5>(pairs, source + starts[5]);
  pairs = insert_pair<6>(pairs, source + starts[6]);
  return insert_pair<7>(pairs, source + starts[7]);
}

}  // namespace algan::cpu::ALGAN_PATH
