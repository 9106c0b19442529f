// Bayer rows to three planes, as 16-bit lanes that are never stored: even and odd pixels in vectors
// of their own, since the pattern treats them differently. Byte for byte what color_math.h gives.
// `L` are a path's lanes.
#pragma once

#include "algan/color_math.h"

namespace algan::cpu::ALGAN_PATH {

// Red, green and blue, 0 to 255, of neighbouring pixels.
template <typename L>
struct Colours {
  typename L::V even[3], odd[3];
};

// One row of the pattern: even and odd pixels, and for each the sum of both its neighbours plus 1.
template <typename L>
struct BayerRow {
  typename L::V even, odd, beside_even, beside_odd;
};

template <typename L>
ALGAN_HD BayerRow<L> bayer_row(typename L::V before, typename L::V even, typename L::V odd,
                               typename L::V after) {
  const auto one = L::splat(1);
  return BayerRow<L>{even, odd, L::add(L::add(before, odd), one), L::add(L::add(even, after), one)};
}

// From the pixels at `from` on, the first of them even; reads one to each side.
template <typename L>
ALGAN_HD BayerRow<L> load_bayer_row(const std::uint8_t* from) {
  const auto pixels = L::load(from);
  return bayer_row<L>(L::low_byte(L::load(from - 1)), L::low_byte(pixels), L::high_byte(pixels),
                      L::high_byte(L::load(from + 1)));
}

// Rows whose own colour lies at even pixels; it becomes the first of the three, that of the rows
// above and below the last. (a + b + c + d + 2) / 4 is half of the mean of a + b + 1 and c + d,
// rounded up.
template <typename L>
ALGAN_HD Colours<L> own_at_even(const BayerRow<L>& above, const BayerRow<L>& row,
                                const BayerRow<L>& below) {
  Colours<L> c;
  c.even[0] = row.even;
  c.odd[0] = L::template down<1>(row.beside_odd);
  c.even[1] = L::template down<1>(L::mean_up(row.beside_even, L::add(above.even, below.even)));
  c.odd[1] = row.odd;
  c.even[2] = L::template down<2>(L::add(above.beside_even, below.beside_even));
  c.odd[2] = L::mean_up(above.odd, below.odd);
  return c;
}

// The others, between those: their own colour, at odd pixels, is the last of the three.
template <typename L>
ALGAN_HD Colours<L> own_at_odd(const BayerRow<L>& above, const BayerRow<L>& row,
                               const BayerRow<L>& below) {
  Colours<L> c;
  c.even[0] = L::mean_up(above.even, below.even);
  c.odd[0] = L::template down<2>(L::add(above.beside_odd, below.beside_odd));
  c.even[1] = row.even;
  c.odd[1] = L::template down<1>(L::mean_up(row.beside_odd, L::add(above.odd, below.odd)));
  c.even[2] = L::template down<1>(row.beside_even);
  c.odd[2] = row.odd;
  return c;
}

}  // namespace algan::cpu::ALGAN_PATH
