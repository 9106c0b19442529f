// Camera formats under the two taps of each column: only the pixels that count are gathered and
// converted. Even lanes of Colours are left taps here, odd ones right taps.
#pragma once

#include <algorithm>
#include <cstring>

#include "box_job.h"
#include "planar_tap.h"

namespace algan::cpu::ALGAN_PATH {

// Rows of the image, gathered: kGatheredBytes for each output in all.
//   Bayer       four bytes for each output: the two taps between their neighbours; four rows are
//               kept, by their number
//   NV12, NV21  luma of both taps, two bytes; then the pair of colours that the left tap lies in
//               and the next one, four bytes
//   I420        luma of both taps; then the same of U, and of V, two bytes each
//   YUYV, UYVY  the group that the left tap lies in, four bytes; then the next one
// A right tap has the first pair or group where the left tap is an even pixel, else the second.
template <typename L>
class GatheredRows {
 public:
  explicit GatheredRows(const BoxJob& job)
      : job_(job), image_(*job.image), outputs_(job.x->padded_size) {}

  // Row y of the crop, blended horizontally: as Ops::blend_columns.
  void blend(std::int32_t crop_y, float* planes) {
    const std::int64_t y = job_.top + crop_y;
    switch (image_.format) {
      case PixelFormat::kNv12:
      case PixelFormat::kNv21:
        gather_pairs(y);
        return blend_pairs(planes);
      case PixelFormat::kI420:
        gather_planes(y);
        return blend_planes(planes);
      case PixelFormat::kYuyv:
      case PixelFormat::kUyvy:
        gather_groups(y);
        return blend_groups(planes);
      default:
        return blend_bayer(y, planes);
    }
  }

 private:
  const std::uint8_t* row(std::int64_t y) const { return image_.data + y * image_.row_stride; }
  std::uint8_t* bytes(std::int32_t plane, std::int32_t per_output) const {
    return job_.gathered + std::ptrdiff_t{plane} * per_output * outputs_;
  }

  // Calls copy(i, x) for outputs whose pixels from x - before to x + after lie in the image, x
  // being the left tap, and edge(i, x) for the few others.
  template <typename Copy, typename Edge>
  ALGAN_HD void each_output(std::int64_t before, std::int64_t after, const Copy& copy,
                            const Edge& edge) const {
    const std::int32_t* starts = job_.x->starts;
    const std::int64_t left = job_.left;
    const std::int64_t last = image_.width_px - 1 - after;
    std::int32_t i = 0;
    for (; i < outputs_ && left + starts[i] < before; ++i) edge(i, left + starts[i]);
    std::int32_t end = outputs_;
    while (end > i && left + starts[end - 1] > last) --end;
#pragma GCC unroll 4
    for (; i < end; ++i) copy(i, left + starts[i]);
    for (; i < outputs_; ++i) edge(i, left + starts[i]);
  }

  template <int kBytes>
  ALGAN_HD static void copy(std::uint8_t* to, const std::uint8_t* from) {
    std::memcpy(to, from, kBytes);
  }

  const std::uint8_t* bayer_row(std::int64_t y) {
    std::uint8_t* to = bytes(static_cast<std::int32_t>(y & 3), 4);
    if (held_[y & 3] == y) return to;
    held_[y & 3] = y;
    const std::uint8_t* from = row(y);
    each_output(
        1, 2, [&](std::int32_t i, std::int64_t x) { copy<4>(to + 4 * i, from + x - 1); },
        [&](std::int32_t i, std::int64_t x) {
          for (std::int64_t k = -1; k < 3; ++k) {
            // What lies further out belongs to a right tap that weighs nothing.
            const std::int64_t at = std::min(x + k, image_.width_px);
            to[4 * i + k + 1] = from[mirror_pixel(at, image_.width_px)];
          }
        });
    return to;
  }

  // Two rows share their colours.
  bool holds_chroma(std::int64_t y) {
    if (held_[0] == y / 2) return true;
    held_[0] = y / 2;
    return false;
  }

  void gather_luma(std::int64_t y) {
    const std::uint8_t* from = row(y);
    std::uint8_t* to = bytes(0, 2);
    each_output(
        0, 1, [&](std::int32_t i, std::int64_t x) { copy<2>(to + 2 * i, from + x); },
        [&](std::int32_t i, std::int64_t x) { to[2 * i] = to[2 * i + 1] = from[x]; });
  }

  // What a right tap beyond the image gets, weighs nothing.
  void gather_pairs(std::int64_t y) {
    const std::uint8_t* luma = row(y);
    const std::uint8_t* pairs = image_.chroma + (y / 2) * image_.chroma_stride;
    std::uint8_t* to_luma = bytes(0, 2);
    std::uint8_t* to_pairs = bytes(1, 4);
    if (holds_chroma(y)) return gather_luma(y);
    each_output(
        0, 3,
        [&](std::int32_t i, std::int64_t x) {
          copy<2>(to_luma + 2 * i, luma + x);
          copy<4>(to_pairs + 4 * i, pairs + (x & ~std::int64_t{1}));
        },
        [&](std::int32_t i, std::int64_t x) {
          const std::int64_t even = x & ~std::int64_t{1};
          copy<2>(to_pairs + 4 * i, pairs + even);
          copy<2>(to_pairs + 4 * i + 2, pairs + std::min(even + 2, image_.width_px - 2));
          to_luma[2 * i] = luma[x];
          to_luma[2 * i + 1] = luma[std::min(x + 1, image_.width_px - 1)];
        });
  }

  void gather_planes(std::int64_t y) {
    const std::uint8_t* luma = row(y);
    const std::uint8_t* u = image_.chroma + (y / 2) * image_.chroma_stride;
    const std::uint8_t* v = image_.chroma_v + (y / 2) * image_.chroma_stride;
    std::uint8_t* to_luma = bytes(0, 2);
    std::uint8_t* to_u = bytes(1, 2);
    std::uint8_t* to_v = bytes(2, 2);
    if (holds_chroma(y)) return gather_luma(y);
    each_output(
        0, 3,
        [&](std::int32_t i, std::int64_t x) {
          copy<2>(to_luma + 2 * i, luma + x);
          copy<2>(to_u + 2 * i, u + (x >> 1));
          copy<2>(to_v + 2 * i, v + (x >> 1));
        },
        [&](std::int32_t i, std::int64_t x) {
          const std::int64_t next = std::min(x + 1, image_.width_px - 1);
          to_luma[2 * i] = luma[x];
          to_luma[2 * i + 1] = luma[next];
          for (std::int32_t k = 0; k < 2; ++k) {
            const std::int64_t pair = k == 0 ? x >> 1 : next >> 1;
            to_u[2 * i + k] = u[pair];
            to_v[2 * i + k] = v[pair];
          }
        });
  }

  void gather_groups(std::int64_t y) {
    const std::uint8_t* from = row(y);
    std::uint8_t* first = bytes(0, 4);
    std::uint8_t* second = bytes(1, 4);
    each_output(
        0, 3,
        [&](std::int32_t i, std::int64_t x) {
          const std::uint8_t* group = from + 2 * (x & ~std::int64_t{1});
          copy<4>(first + 4 * i, group);
          copy<4>(second + 4 * i, group + 4);
        },
        [&](std::int32_t i, std::int64_t x) {
          const std::int64_t even = x & ~std::int64_t{1};
          copy<4>(first + 4 * i, from + 2 * even);
          copy<4>(second + 4 * i, from + 2 * std::min(even + 2, image_.width_px - 2));
        });
  }

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
    const std::uint8_t* quads[3] = {bayer_row(mirror_pixel(y - 1, image_.height_px)), bayer_row(y),
                                    bayer_row(mirror_pixel(y + 1, image_.height_px))};
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
    const std::uint8_t* luma = bytes(0, 2);
    const std::uint8_t* pairs = bytes(1, 4);
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
    const std::uint8_t* luma = bytes(0, 2);
    const std::uint8_t* u = bytes(1, 2);
    const std::uint8_t* v = bytes(2, 2);
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
    const std::uint8_t* groups = bytes(0, 4);
    const std::uint8_t* next_groups = bytes(1, 4);
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
  std::int64_t held_[4] = {-1, -1, -1, -1};
};

}  // namespace algan::cpu::ALGAN_PATH
