// Camera formats under a vertical tap: converted in registers and added up at once, so that no row
// of colours is ever stored. The sums are those of row_sum.h, bit for bit, in three planes.
#pragma once

#include <cstring>

#include "box_job.h"
#include "planar_yuv.h"
#include "row_sum.h"

namespace algan::cpu::ALGAN_PATH {

// Rows of a strip 2 * L::kLanes pixels wide that starts at an even pixel, and of its colours.
struct Strip {
  const std::uint8_t* first;
  std::ptrdiff_t stride;
  const std::uint8_t* above;  // Bayer: of the rows beside the tap
  const std::uint8_t* below;
  const std::uint8_t* chroma;  // of the colour row that the first row has
  const std::uint8_t* chroma_v;
  std::ptrdiff_t chroma_stride;
  std::int32_t
      phase;  // of the first row, 0 or 1: Bayer: own colour at even or odd pixels; YUV: y & 1
};

// Planes of sums: of the colours in the order in which a strip gives them.
struct SumPlanes {
  std::int16_t* plane[3];
};

template <typename L>
struct WeighedRow {
  typename L::V even[3], odd[3];
};

// With one fraction bit more than the sums have, cut off.
template <typename L>
ALGAN_HD WeighedRow<L> weigh(const Colours<L>& c, std::uint16_t weight) {
  WeighedRow<L> w;
  for (int p = 0; p < 3; ++p) {
    w.even[p] = L::mul_high(L::template up<8>(c.even[p]), L::splat(weight));
    w.odd[p] = L::mul_high(L::template up<8>(c.odd[p]), L::splat(weight));
  }
  return w;
}

// As sum_block of the paths. The next row is what `rows.next()` returns.
template <typename L, typename Rows>
ALGAN_HD void sum_strip(const RowSum& s, Rows rows, const SumPlanes& to) {
  Colours<L> sums{};
  for (int p = 0; p < 3; ++p) sums.even[p] = sums.odd[p] = L::splat(0);
  const auto add = [&sums](const Colours<L>& c) {
    for (int p = 0; p < 3; ++p) {
      sums.even[p] = L::add(sums.even[p], c.even[p]);
      sums.odd[p] = L::add(sums.odd[p], c.odd[p]);
    }
  };
  Colours<L> row = rows.next();
  if (s.whole_begin == 0 && s.whole_end > 0) add(row);
  const WeighedRow<L> first = weigh<L>(row, s.first);
  std::int32_t k = 1;
  for (; k + 1 < s.last_row; k += 2) rows.next_two(add);
  for (; k < s.last_row; ++k) add(rows.next());
  if (s.last_row > 0) {
    row = rows.next();
    if (s.whole_end > s.last_row) add(row);
  }
  const WeighedRow<L> last = weigh<L>(row, s.last);
  const auto one = L::splat(static_cast<std::uint16_t>(1 << s.bits));
  const auto offset = L::splat(0x8000);
  const auto total = [&](typename L::V sum, typename L::V a, typename L::V b) {
    return L::flip(L::add(L::mul_low(sum, one), L::mean_up(a, b)), offset);
  };
  for (int p = 0; p < 3; ++p) {
    L::store_zipped(to.plane[p], total(sums.even[p], first.even[p], last.even[p]),
                    total(sums.odd[p], first.odd[p], last.odd[p]));
  }
}

// Bayer rows one after the other. kPhase is the phase of the next row.
template <typename L, int kPhase>
struct BayerRows {
  const Strip& strip;
  const std::int32_t last_row;
  std::int32_t k;  // of the next row
  BayerRow<L> above, row;

  BayerRows(const Strip& s, std::int32_t last)
      : strip(s),
        last_row(last),
        k(0),
        above(load_bayer_row<L>(s.above)),
        row(load_bayer_row<L>(s.first)) {}

  ALGAN_HD BayerRow<L> load(std::int32_t i) const {
    return load_bayer_row<L>(i > last_row ? strip.below : strip.first + strip.stride * i);
  }
  template <bool kAtEven>
  ALGAN_HD static Colours<L> colours(const BayerRow<L>& a, const BayerRow<L>& b,
                                     const BayerRow<L>& c) {
    if constexpr (kAtEven) {
      return own_at_even<L>(a, b, c);
    } else {
      return own_at_odd<L>(a, b, c);
    }
  }
  ALGAN_HD Colours<L> next() {
    const bool at_even = ((k ^ kPhase) & 1) == 0;
    const BayerRow<L> below = load(++k);
    const Colours<L> c =
        at_even ? colours<true>(above, row, below) : colours<false>(above, row, below);
    above = row;
    row = below;
    return c;
  }
  // From an odd row on.
  template <typename Add>
  ALGAN_HD void next_two(const Add& add) {
    const BayerRow<L> second = load_bayer_row<L>(strip.first + strip.stride * (k + 1));
    add(colours<kPhase == 1>(above, row, second));
    const BayerRow<L> third = load(k + 2);
    add(colours<kPhase == 0>(row, second, third));
    above = second;
    row = third;
    k += 2;
  }
};

// What a YUV format's row gives: luma of even and odd pixels, and the terms of each pair.
template <typename L, PixelFormat kFormat>
struct YuvRows {
  static constexpr bool kPacked = kFormat == PixelFormat::kYuyv || kFormat == PixelFormat::kUyvy;
  static constexpr bool kUFirst = kFormat != PixelFormat::kNv21;

  const Strip& strip;
  const YuvFactors factors;
  std::int32_t k;
  YuvTerms<L> terms;

  YuvRows(const Strip& s, const YuvFactors& f) : strip(s), factors(f), k(0), terms{} {
    if constexpr (!kPacked) load_terms();
  }

  ALGAN_HD void load_terms() {
    const std::ptrdiff_t at = strip.chroma_stride * ((k + strip.phase) / 2);
    if constexpr (kFormat == PixelFormat::kI420) {
      terms = yuv_terms<L>(L::widen(strip.chroma + at), L::widen(strip.chroma_v + at), factors);
    } else {
      const auto pairs = L::load(strip.chroma + at);
      const auto first = L::low_byte(pairs);
      const auto last = L::high_byte(pairs);
      terms = yuv_terms<L>(kUFirst ? first : last, kUFirst ? last : first, factors);
    }
  }
  ALGAN_HD Colours<L> next() {
    const std::uint8_t* from = strip.first + strip.stride * k;
    typename L::V even, odd;
    if constexpr (kPacked) {
      // Words of each group of four bytes: (Y U), (Y V), or the other way round.
      typename L::V first, last;
      L::split_quads(from, first, last);
      constexpr bool kLumaFirst = kFormat == PixelFormat::kYuyv;
      even = kLumaFirst ? L::low_byte(first) : L::high_byte(first);
      odd = kLumaFirst ? L::low_byte(last) : L::high_byte(last);
      terms = yuv_terms<L>(kLumaFirst ? L::high_byte(first) : L::low_byte(first),
                           kLumaFirst ? L::high_byte(last) : L::low_byte(last), factors);
    } else {
      if (k > 0 && ((k + strip.phase) & 1) == 0) load_terms();
      const auto pixels = L::load(from);
      even = L::low_byte(pixels);
      odd = L::high_byte(pixels);
    }
    ++k;
    Colours<L> c;
    yuv_pixels<L>(yuv_luma<L>(even, factors), terms, c.even);
    yuv_pixels<L>(yuv_luma<L>(odd, factors), terms, c.odd);
    return c;
  }
  template <typename Add>
  ALGAN_HD void next_two(const Add& add) {
    add(next());
    add(next());
  }
};

}  // namespace algan::cpu::ALGAN_PATH
