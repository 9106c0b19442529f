// Camera formats under the two taps of each column: only the pixels that count are gathered and
// converted. Even lanes of Colours are left taps here, odd ones right taps.
#pragma once

#include "gather.h"
#include "planar_tap.h"

namespace algan::cpu::ALGAN_PATH {

template <typename L>
class PlanarBlend {
 public:
  explicit PlanarBlend(const BoxJob& job)
      : job_(job), image_(*job.image), outputs_(job.x->padded_size), rows_(job) {}

  // Row y of the crop, blended horizontally: as Ops::blend_columns.
  void blend(std::int32_t crop_y, float* planes) {
    const std::int64_t y = job_.top + crop_y;
    switch (image_.format) {
      case PixelFormat::kNv12:
      case PixelFormat::kNv21:
        rows_.gather_pairs(y);
        return blend_pairs(planes);
      case PixelFormat::kI420:
        rows_.gather_planes(y);
        return blend_planes(planes);
      case PixelFormat::kYuyv:
      case PixelFormat::kUyvy:
        rows_.gather_groups(y);
        return blend_groups(planes);
      default:
        return blend_bayer(y, planes);
    }
  }

 private:
  // Calls work(i) for whole vectors of outputs; the last ones twice, with the same numbers.
  template <typename Work>
  ALGAN_HD void each_vector(const Work work) const {
    const std::int32_t outputs = outputs_;
    for (std::int32_t i = 0; i < outputs; i += L::kLanes) {
      work(i + L::kLanes <= outputs ? i : outputs - L::kLanes);
    }
  }

  // Where blended columns go: values, so that no store can be taken to change them.
  struct Columns {
    const std::int16_t* weights;
    float* planes[3];

    ALGAN_HD void store(const Colours<L>& c, std::int32_t i) const {
      for (int p = 0; p < 3; ++p) L::blend(c.even[p], c.odd[p], weights + 2 * i, planes[p] + i);
    }
  };

  Columns columns(float* planes, bool red_last) const {
    float* last = planes + 2 * std::ptrdiff_t{outputs_};
    return Columns{job_.x->blend_grey,
                   {red_last ? last : planes, planes + outputs_, red_last ? planes : last}};
  }

  // Ones where the left tap is an odd pixel.
  struct OddTaps {
    const std::int32_t* starts;
    typename L::V first;  // ones where the crop's first pixel is an odd one

    ALGAN_HD typename L::V operator()(std::int32_t i) const {
      return L::flip(L::odd_lanes(L::low_words(starts + i)), first);
    }
  };
  OddTaps find_odd_taps() const {
    return OddTaps{job_.x->starts, L::splat((job_.left & 1) == 0 ? 0 : 0xFFFF)};
  }

  void blend_bayer(std::int64_t y, float* planes) {
    const std::uint8_t* quads[3] = {rows_.bayer_row(mirror_pixel(y - 1, image_.height_px)),
                                    rows_.bayer_row(y),
                                    rows_.bayer_row(mirror_pixel(y + 1, image_.height_px))};
    const BayerOrder order = bayer_order(image_.format);
    const bool row_at_even = (y & 1) == order.even_row;
    const bool red_row = row_at_even == order.even_is_red;
    const Columns to = columns(planes, !red_row);
    const OddTaps odd_taps = find_odd_taps();
    const auto flip = L::splat(row_at_even ? 0xFFFF : 0);
    each_vector([=](std::int32_t i) {
      BayerRow<L> rows[3];
      for (int k = 0; k < 3; ++k) {
        typename L::V first, last;
        L::split_quads(quads[k] + 4 * i, first, last);
        rows[k] = ALGAN_PATH::bayer_row<L>(L::low_byte(first), L::high_byte(first),
                                           L::low_byte(last), L::high_byte(last));
      }
      const Colours<L> left_own = own_at_even<L>(rows[0], rows[1], rows[2]);
      const Colours<L> right_own = own_at_odd<L>(rows[0], rows[1], rows[2]);
      const auto left = L::flip(odd_taps(i), flip);
      Colours<L> c;  // own, green, other
      for (int p = 0; p < 3; ++p) {
        c.even[p] = L::select(left, left_own.even[p], right_own.even[2 - p]);
        c.odd[p] = L::select(left, left_own.odd[p], right_own.odd[2 - p]);
      }
      to.store(c, i);
    });
  }

  // One tap of each column: its luma and terms to red, green and blue.
  ALGAN_HD static void tap_colours(typename L::V luma, typename L::V u, typename L::V v,
                                   const YuvFactors& f, typename L::V rgb[3]) {
    yuv_pixels<L>(yuv_luma<L>(luma, f), yuv_terms<L>(u, v, f), rgb);
  }

  void blend_pairs(float* planes) {
    const YuvFactors f = yuv_factors(image_.yuv);
    const std::uint8_t* luma = rows_.bytes(0, 2);
    const std::uint8_t* pairs = rows_.bytes(1, 4);
    const bool u_first = image_.format == PixelFormat::kNv12;
    const Columns to = columns(planes, false);
    const OddTaps odd_taps = find_odd_taps();
    each_vector([=](std::int32_t i) {
      typename L::V left, next;
      L::split_quads(pairs + 4 * i, left, next);
      const auto both = L::load(luma + 2 * i);
      const auto tap = [&](typename L::V y, typename L::V pair, typename L::V rgb[3]) {
        const auto first = L::low_byte(pair);
        const auto last = L::high_byte(pair);
        tap_colours(y, u_first ? first : last, u_first ? last : first, f, rgb);
      };
      Colours<L> c;
      tap(L::low_byte(both), left, c.even);
      tap(L::high_byte(both), L::select(odd_taps(i), next, left), c.odd);
      to.store(c, i);
    });
  }

  void blend_planes(float* planes) {
    const YuvFactors f = yuv_factors(image_.yuv);
    const std::uint8_t* luma = rows_.bytes(0, 2);
    const std::uint8_t* u = rows_.bytes(1, 2);
    const std::uint8_t* v = rows_.bytes(2, 2);
    const Columns to = columns(planes, false);
    const OddTaps odd_taps = find_odd_taps();
    each_vector([=](std::int32_t i) {
      const auto both = L::load(luma + 2 * i);
      const auto odd = odd_taps(i);
      const auto right = [&](typename L::V two) {
        return L::select(odd, L::high_byte(two), L::low_byte(two));
      };
      const auto two_u = L::load(u + 2 * i);
      const auto two_v = L::load(v + 2 * i);
      Colours<L> c;
      tap_colours(L::low_byte(both), L::low_byte(two_u), L::low_byte(two_v), f, c.even);
      tap_colours(L::high_byte(both), right(two_u), right(two_v), f, c.odd);
      to.store(c, i);
    });
  }

  // Words of a group: (Y U) and (Y V), or the other way round.
  struct Group {
    typename L::V luma[2], u, v;
  };
  ALGAN_HD static Group load_group(const std::uint8_t* groups, bool luma_first) {
    typename L::V first, last;
    L::split_quads(groups, first, last);
    const auto low = [](typename L::V words) { return L::low_byte(words); };
    const auto high = [](typename L::V words) { return L::high_byte(words); };
    return luma_first ? Group{{low(first), low(last)}, high(first), high(last)}
                      : Group{{high(first), high(last)}, low(first), low(last)};
  }

  void blend_groups(float* planes) {
    const YuvFactors f = yuv_factors(image_.yuv);
    const std::uint8_t* groups = rows_.bytes(0, 4);
    const std::uint8_t* next_groups = rows_.bytes(1, 4);
    const bool luma_first = image_.format == PixelFormat::kYuyv;
    const Columns to = columns(planes, false);
    const OddTaps odd_taps = find_odd_taps();
    each_vector([=](std::int32_t i) {
      const Group group = load_group(groups + 4 * i, luma_first);
      const Group next = load_group(next_groups + 4 * i, luma_first);
      const auto odd = odd_taps(i);
      Colours<L> c;
      tap_colours(L::select(odd, group.luma[1], group.luma[0]), group.u, group.v, f, c.even);
      tap_colours(L::select(odd, next.luma[0], group.luma[1]), L::select(odd, next.u, group.u),
                  L::select(odd, next.v, group.v), f, c.odd);
      to.store(c, i);
    });
  }

  const BoxJob& job_;
  const ImageView& image_;
  const std::int32_t outputs_;
  GatheredRows rows_;
};

}  // namespace algan::cpu::ALGAN_PATH
