// The pixels of camera formats that both taps of each column read, and what their colours take
// besides, side by side.
#pragma once

#include <cstring>

#include "algan/color_math.h"
#include "box_job.h"

namespace algan::cpu::ALGAN_PATH {

// Rows of the image, gathered: kGatheredBytes for each output in all.
//   Bayer       four bytes for each output: the two taps between their neighbours; four rows are
//               kept, by their number
//   NV12, NV21  luma of both taps, two bytes; then the pair of colours that the left tap lies in
//               and the next one, four bytes
//   I420        luma of both taps; then the same of U, and of V, two bytes each
//   YUYV, UYVY  the group that the left tap lies in, four bytes; then the next one
// A right tap has the first pair or group where the left tap is an even pixel, else the second.
class GatheredRows {
 public:
  explicit GatheredRows(const BoxJob& job)
      : job_(job), image_(*job.image), outputs_(job.x->padded_size) {}

  std::uint8_t* bytes(std::int32_t plane, std::int32_t per_output) const {
    return job_.gathered + std::ptrdiff_t{plane} * per_output * outputs_;
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
            const std::int64_t at = lesser(x + k, image_.width_px);
            to[4 * i + k + 1] = from[mirror_pixel(at, image_.width_px)];
          }
        });
    return to;
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
          copy<2>(to_pairs + 4 * i + 2, pairs + lesser(even + 2, image_.width_px - 2));
          to_luma[2 * i] = luma[x];
          to_luma[2 * i + 1] = luma[lesser(x + 1, image_.width_px - 1)];
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
          const std::int64_t next = lesser(x + 1, image_.width_px - 1);
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
          copy<4>(second + 4 * i, from + 2 * lesser(even + 2, image_.width_px - 2));
        });
  }

 private:
  ALGAN_HD static std::int64_t lesser(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
  const std::uint8_t* row(std::int64_t y) const { return image_.data + y * image_.row_stride; }
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

  const BoxJob& job_;
  const ImageView& image_;
  const std::int32_t outputs_;
  std::int64_t held_[4] = {-1, -1, -1, -1};
};

}  // namespace algan::cpu::ALGAN_PATH
