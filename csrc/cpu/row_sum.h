// The fixed point in which the SIMD paths add up the rows of a vertical tap.
#pragma once

#include <cstddef>
#include <cstdint>

#include "algan/pixel_math.h"

namespace algan::cpu::ALGAN_PATH {

// Weights and fixed point of one vertical tap. Sums are unsigned 16-bit numbers with `bits`
// fraction bits, kept as signed ones by subtracting 2^15 (kSumOffset), which pmaddwd needs.
struct RowSum {
  std::int32_t bits;
  std::uint16_t first, last;            // 2^(bits + 9) * weight; 0 if that row counts as whole
  std::int32_t whole_begin, whole_end;  // rows of weight 1
  std::int32_t last_row;
};

// Steps above this would overflow a sum even without fraction bits.
constexpr double kMaxSumStep = 256.0;

// 255 * rows * 2^bits must fit into 16 bits, and so must the weights.
ALGAN_HD std::int32_t sum_bits(double step) {
  std::int32_t bits = 7;
  while (bits > 0 && step * static_cast<double>(1 << bits) > kMaxSumStep) --bits;
  return bits;
}

ALGAN_HD RowSum row_sum(const Tap& tap, double step) {
  // Closer to 1 than 16 bits can say: such a row counts as a whole one.
  constexpr float kAlmostOne = 65535.0F / 65536.0F;
  const bool first_whole = tap.first >= kAlmostOne;
  const bool last_whole = tap.last >= kAlmostOne;
  RowSum sum{};
  sum.bits = sum_bits(step > 1.0 ? step : 1.0);
  const auto fixed = [&](float weight, bool whole) {
    const float scaled = weight * static_cast<float>(1 << (sum.bits + 9)) + 0.5F;
    return whole ? std::uint16_t{0} : static_cast<std::uint16_t>(scaled);
  };
  sum.first = fixed(tap.first, first_whole);
  sum.last = fixed(tap.last, last_whole);
  sum.last_row = tap.count - 1;
  sum.whole_begin = first_whole ? 0 : 1;
  sum.whole_end = last_whole ? tap.count : tap.count - 1;
  if (tap.count == 1) sum.whole_end = first_whole ? 1 : 0;
  return sum;
}

// The rows of the next tap, into the second-level cache: several rows at once, each of more than a
// page, are more than the processor foresees.
ALGAN_HD void prefetch_next_sum(const RowSum& s, const std::uint8_t* source,
                                std::ptrdiff_t stride) {
  constexpr int kSecondLevel = 2;
  for (std::int32_t k = 1; k <= s.whole_end; ++k) {
    __builtin_prefetch(source + stride * (s.last_row + k), 0, kSecondLevel);
  }
}

// Narrow crops: the same arithmetic, byte by byte, so that width does not change the numbers.
ALGAN_HD std::int16_t sum_byte(const RowSum& s, const std::uint8_t* source, std::ptrdiff_t stride) {
  std::int32_t whole = 0;
  for (std::int32_t k = s.whole_begin; k < s.whole_end; ++k) whole += source[stride * k];
  const auto weighted = [&](std::int32_t k, std::uint16_t weight) {
    const std::uint32_t product = (std::uint32_t{source[stride * k]} << 8) * weight;
    return static_cast<std::int32_t>(product >> 16);
  };
  const std::int32_t weighted_rows = weighted(0, s.first) + weighted(s.last_row, s.last);
  return static_cast<std::int16_t>((whole << s.bits) + ((weighted_rows + 1) >> 1) - (1 << 15));
}

}  // namespace algan::cpu::ALGAN_PATH
