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
//   NV12, I420  planes of two bytes: luma of both taps, colours of the left one and of the right
//   YUYV        planes of four bytes: the groups that the left tap and the right one lie in
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
        return blend_yuv<false>(image_.format == PixelFormat::kNv12, planes);
      case PixelFormat::kI420:
        gather_planes(y);
        return blend_yuv<false>(true, planes);
      case PixelFormat::kYuyv:
      case PixelFormat::kUyvy:
        gather_groups(y);
        return blend_yuv<true>(image_.format == PixelFormat::kYuyv, planes);
      default:
        return blend_bayer(y, planes);
    }
  }

 private:
  const std::uint8_t* row(std::int64_t y) const { return image_.data + y * image_.row_stride; }
  std::uint8_t* bytes(std::int32_t plane, std::int32_t per_output) const {
    return job_.gathered + static_cast<std::ptrdiff_t>(plane) * per_output * outputs_;
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
    for (; i < end; ++i) copy(i, left + starts[i]);
    for (; i < outputs_; ++i) edge(i, left + starts[i]);
  }

  template <int kBytes>
  ALGAN_HD static void copy(std::uint8_t* to, const std::uint8_t* from) {
    std::memcpy(to, from, kBytes);
  }

  // Calls gather(i, left tap, right tap); where the left one is the last pixel, the right weighs
  // nothing.
  template <typename Gather>
  ALGAN_HD void each_pair(const Gather& gather) const {
    each_output(
        0, 1, [&](std::int32_t i, std::int64_t x) { gather(i, x, x + 1); },
        [&](std::int32_t i, std::int64_t x) { gather(i, x, x); });
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

  void gather_luma(std::int64_t y) {
    const std::uint8_t* from = row(y);
    std::uint8_t* to = bytes(0, 2);
    each_output(
        0, 1, [&](std::int32_t i, std::int64_t x) { copy<2>(to + 2 * i, from + x); },
        [&](std::int32_t i, std::int64_t x) { to[2 * i] = to[2 * i + 1] = from[x]; });
  }

  void gather_pairs(std::int64_t y) {
    gather_luma(y);
    if (held_[0] == y / 2) return;
    held_[0] = y / 2;
    const std::uint8_t* from = image_.chroma + (y / 2) * image_.chroma_stride;
    std::uint8_t* left = bytes(1, 2);
    std::uint8_t* right = bytes(2, 2);
    each_pair([&](std::int32_t i, std::int64_t x, std::int64_t next) {
      copy<2>(left + 2 * i, from + (x & ~std::int64_t{1}));
      copy<2>(right + 2 * i, from + (next & ~std::int64_t{1}));
    });
  }

  void gather_planes(std::int64_t y) {
    gather_luma(y);
    if (held_[0] == y / 2) return;
    held_[0] = y / 2;
    const std::uint8_t* u = image_.chroma + (y / 2) * image_.chroma_stride;
    const std::uint8_t* v = image_.chroma_v + (y / 2) * image_.chroma_stride;
    std::uint8_t* left = bytes(1, 2);
    std::uint8_t* right = bytes(2, 2);
    each_pair([&](std::int32_t i, std::int64_t x, std::int64_t next) {
      left[2 * i] = u[x >> 1];
      left[2 * i + 1] = v[x >> 1];
      right[2 * i] = u[next >> 1];
      right[2 * i + 1] = v[next >> 1];
    });
  }

  void gather_groups(std::int64_t y) {
    const std::uint8_t* from = row(y);
    std::uint8_t* left = bytes(0, 4);
    std::uint8_t* right = bytes(1, 4);
    each_pair([&](std::int32_t i, std::int64_t x, std::int64_t next) {
      copy<4>(left + 4 * i, from + 2 * (x & ~std::int64_t{1}));
      copy<4>(right + 4 * i, from + 2 * (next & ~std::int64_t{1}));
    });
  }

  // Calls work(i) for whole vectors of outputs; the last ones twice, with the same numbers.
  template <typename Work>
  ALGAN_HD void each_vector(const Work& work) const {
    for (std::int32_t i = 0; i < outputs_; i += L::kLanes) {
      work(i + L::kLanes <= outputs_ ? i : outputs_ - L::kLanes);
    }
  }

  ALGAN_HD void store(const Colours<L>& c, std::int32_t i, bool red_last, float* planes) const {
    const std::int16_t* weights = job_.x->blend_grey + 2 * i;
    float* to = planes + i;
    for (int p = 0; p < 3; ++p) {
      L::blend(c.even[p], c.odd[p], weights, to + outputs_ * (red_last ? 2 - p : p));
    }
  }

  // Ones where the left tap is an odd pixel.
  ALGAN_HD typename L::V odd_taps(std::int32_t i) const {
    const auto odd = L::odd_lanes(L::low_words(job_.x->starts + i));
    return (job_.left & 1) == 0 ? odd : L::flip(odd, L::splat(0xFFFF));
  }

  void blend_bayer(std::int64_t y, float* planes) {
    const std::uint8_t* quads[3] = {bayer_row(mirror_pixel(y - 1, image_.height_px)), bayer_row(y),
                                    bayer_row(mirror_pixel(y + 1, image_.height_px))};
    const BayerOrder order = bayer_order(image_.format);
    const bool row_at_even = (y & 1) == order.even_row;
    const bool red_row = row_at_even == order.even_is_red;
    each_vector([&](std::int32_t i) {
      BayerRow<L> rows[3];
      for (int k = 0; k < 3; ++k) {
        typename L::V first, last;
        L::split_quads(quads[k] + 4 * i, first, last);
        rows[k] = ALGAN_PATH::bayer_row<L>(L::low_byte(first), L::high_byte(first),
                                           L::low_byte(last), L::high_byte(last));
      }
      const Colours<L> left_own = own_at_even<L>(rows[0], rows[1], rows[2]);
      const Colours<L> right_own = own_at_odd<L>(rows[0], rows[1], rows[2]);
      const auto odd = odd_taps(i);
      const auto left = row_at_even ? L::flip(odd, L::splat(0xFFFF)) : odd;
      Colours<L> c;  // own, green, other
      for (int p = 0; p < 3; ++p) {
        c.even[p] = L::select(left, left_own.even[p], right_own.even[2 - p]);
        c.odd[p] = L::select(left, left_own.odd[p], right_own.odd[2 - p]);
      }
      store(c, i, !red_row, planes);
    });
  }

  // One tap of each column: its luma and terms to red, green and blue.
  ALGAN_HD static void tap_colours(typename L::V luma, typename L::V u, typename L::V v,
                                   const YuvFactors& f, typename L::V rgb[3]) {
    yuv_pixels<L>(yuv_luma<L>(luma, f), yuv_terms<L>(u, v, f), rgb);
  }

  // in_order: U before V, or, in groups, luma before colours.
  template <bool kGroups>
  void blend_yuv(bool in_order, float* planes) {
    const YuvFactors f = yuv_factors(image_.yuv);
    each_vector([&](std::int32_t i) {
      Colours<L> c;
      if constexpr (kGroups) {
        const auto odd = odd_taps(i);
        group_colours(bytes(0, 4) + 4 * i, odd, in_order, f, c.even);
        group_colours(bytes(1, 4) + 4 * i, L::flip(odd, L::splat(0xFFFF)), in_order, f, c.odd);
      } else {
        const auto luma = L::load(bytes(0, 2) + 2 * i);
        const auto left = L::load(bytes(1, 2) + 2 * i);
        const auto right = L::load(bytes(2, 2) + 2 * i);
        const auto tap = [&](typename L::V y, typename L::V pairs, typename L::V rgb[3]) {
          const auto first = L::low_byte(pairs);
          const auto last = L::high_byte(pairs);
          tap_colours(y, in_order ? first : last, in_order ? last : first, f, rgb);
        };
        tap(L::low_byte(luma), left, c.even);
        tap(L::high_byte(luma), right, c.odd);
      }
      store(c, i, false, planes);
    });
  }

  ALGAN_HD static void group_colours(const std::uint8_t* groups, typename L::V odd, bool luma_first,
                                     const YuvFactors& f, typename L::V rgb[3]) {
    typename L::V first, last;  // (Y U) and (Y V), or the other way round
    L::split_quads(groups, first, last);
    const auto pixel = L::select(odd, last, first);
    tap_colours(luma_first ? L::low_byte(pixel) : L::high_byte(pixel),
                luma_first ? L::high_byte(first) : L::low_byte(first),
                luma_first ? L::high_byte(last) : L::low_byte(last), f, rgb);
  }

  const BoxJob& job_;
  const ImageView& image_;
  const std::int32_t outputs_;
  std::int64_t held_[4] = {-1, -1, -1, -1};
};

}  // namespace algan::cpu::ALGAN_PATH
