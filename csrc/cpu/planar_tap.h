// Where the strips of planar_sums.h lie: over the whole width of a crop, and beyond the image's
// edges, where they read a padded copy.
#pragma once

#include "planar_sums.h"

namespace algan::cpu::ALGAN_PATH {

inline bool is_bayer(PixelFormat format) {
  return format >= PixelFormat::kBayerRggb8 && format <= PixelFormat::kBayerGbrg8;
}

// Whether the rows whose number is even have their own colour at even pixels, and whether that
// colour is red.
struct BayerOrder {
  std::int32_t even_row;
  bool even_is_red;
};

inline BayerOrder bayer_order(PixelFormat format) {
  const BayerPhase phase = bayer_phase(format);
  const bool red = phase.red_column == 0;
  return BayerOrder{red ? phase.red_row : 1 - phase.red_row, red};
}

// Strips of a tap whose first row is y of the image.
template <typename L>
struct TapStrips {
  static constexpr std::int32_t kWidth = 2 * L::kLanes;

  const ImageView& image;
  std::uint8_t* const edge;  // job.edge
  const std::int64_t y;
  const std::int32_t count;
  const std::int32_t pixel;
  const bool planes;  // U and V apart
  Strip start{};      // at the image's first column

  TapStrips(const ImageView& of, std::uint8_t* copies, std::int64_t first_row, std::int32_t rows)
      : image(of),
        edge(copies),
        y(first_row),
        count(rows),
        pixel(of.pixel_bytes()),
        planes(of.format == PixelFormat::kI420) {
    start.first = row(y);
    start.stride = image.row_stride;
    start.above = row(mirror_pixel(y - 1, image.height_px));
    start.below = row(mirror_pixel(y + count, image.height_px));
    start.chroma_stride = image.chroma_stride;
    start.phase = static_cast<std::int32_t>(y & 1);
    const std::ptrdiff_t at = image.chroma_stride * (y / 2);
    if (image.chroma != nullptr) start.chroma = image.chroma + at;
    if (planes) start.chroma_v = image.chroma_v + at;
  }

  const std::uint8_t* row(std::int64_t at) const { return image.data + at * image.row_stride; }

  // A copy of rows y - 1 to y + count, each with the pixel before the strip and that after it.
  Strip bayer_edge(std::int64_t x) const {
    constexpr std::ptrdiff_t kStride = kWidth + 2;
    const std::int64_t begin = x > 0 ? x - 1 : 0;
    const std::int64_t after = x + kWidth + 1;
    const std::int64_t end = after < image.width_px ? after : image.width_px;
    for (std::int32_t k = -1; k <= count; ++k) {
      const std::uint8_t* from = row(mirror_pixel(y + k, image.height_px));
      std::uint8_t* to = edge + (k + 1) * kStride;  // of pixel x - 1
      std::memcpy(to + begin - (x - 1), from + begin, static_cast<std::size_t>(end - begin));
      if (x == 0) to[0] = from[mirror_pixel(-1, image.width_px)];
      if (end < after) to[end - (x - 1)] = from[mirror_pixel(end, image.width_px)];
    }
    Strip strip{};
    strip.above = edge + 1;
    strip.first = strip.above + kStride;
    strip.stride = kStride;
    strip.below = strip.above + kStride * (count + 1);
    return strip;
  }

  ALGAN_HD Strip bayer(std::int64_t x) const {
    if (x < 1 || x + kWidth >= image.width_px) return bayer_edge(x);
    Strip strip = start;
    strip.first += x;
    strip.above += x;
    strip.below += x;
    return strip;
  }

  // Copies what there is of `rows` rows, 2 * kWidth bytes from one to the next, and points to it.
  static void copy_rows(const std::uint8_t*& from, std::ptrdiff_t& stride, std::int32_t rows,
                        std::int64_t bytes, std::uint8_t* to) {
    constexpr std::ptrdiff_t kStride = 2 * kWidth;
    for (std::int32_t k = 0; k < rows; ++k) {
      std::memcpy(to + k * kStride, from + k * stride, static_cast<std::size_t>(bytes));
    }
    from = to;
    stride = kStride;
  }

  ALGAN_HD Strip yuv(std::int64_t x) const {
    Strip strip = start;
    strip.first += x * pixel;
    if (image.chroma != nullptr) strip.chroma += planes ? x / 2 : x;
    if (planes) strip.chroma_v += x / 2;
    return image.width_px - x >= kWidth ? strip : yuv_edge(strip, image.width_px - x);
  }

  // A copy of the `left` pixels that the strip has inside the image.
  Strip yuv_edge(Strip strip, std::int64_t left) const {
    copy_rows(strip.first, strip.stride, count, left * pixel, edge);
    if (image.chroma == nullptr) return strip;
    const std::int32_t chroma_rows = (count + strip.phase + 1) / 2;
    const std::int64_t bytes = planes ? left / 2 : left;
    std::uint8_t* to = edge + std::ptrdiff_t{2} * kWidth * count;
    std::ptrdiff_t stride = strip.chroma_stride;
    copy_rows(strip.chroma, stride, chroma_rows, bytes, to);
    if (planes) {
      copy_rows(strip.chroma_v, strip.chroma_stride, chroma_rows, bytes, to + stride * chroma_rows);
    }
    strip.chroma_stride = stride;
    return strip;
  }
};

// `rows_of(strip)` makes what sum_strip reads, `to` takes the sums of the first strip.
template <typename L, typename StripAt, typename RowsOf>
ALGAN_HD void sum_strips(const RowSum& s, std::int32_t width, const StripAt& strip_at,
                         const RowsOf& rows_of, SumPlanes to) {
  constexpr std::int32_t kWidth = TapStrips<L>::kWidth;
  for (std::int32_t i = 0; i < width; i += kWidth) {
    const Strip strip = strip_at(i);
    prefetch_next_sum(s, strip.first, strip.stride);
    sum_strip<L>(s, rows_of(strip), to);
    for (std::int16_t*& plane : to.plane) plane += kWidth;
  }
}

template <typename L, int kPhase>
void sum_bayer(const TapStrips<L> strips, const RowSum s, std::int64_t x, std::int32_t width,
               const SumPlanes to) {
  sum_strips<L>(
      s, width, [&](std::int32_t i) { return strips.bayer(x + i); },
      [&](const Strip& strip) { return BayerRows<L, kPhase>(strip, s.last_row); }, to);
}

template <typename L, PixelFormat kFormat>
void sum_yuv(const TapStrips<L> strips, const RowSum s, std::int64_t x, std::int32_t width,
             const SumPlanes to) {
  const YuvFactors factors = yuv_factors(strips.image.yuv);
  sum_strips<L>(
      s, width, [&](std::int32_t i) { return strips.yuv(x + i); },
      [&](const Strip& strip) { return YuvRows<L, kFormat>(strip, factors); }, to);
}

// As Ops::sum_rows, from the image as it is to three planes of sums, red, green and blue, in
// job.row; `first` is set to that of the crop's first pixel.
template <typename L>
float sum_planar_rows(const BoxJob& job, const Tap& tap, const std::int16_t*& first) {
  const ImageView& image = *job.image;
  const RowSum s = row_sum(tap, job.y->step);
  const TapStrips<L> strips{image, job.edge, job.top + tap.start, tap.count};
  auto* row = static_cast<std::int16_t*>(job.row);
  const std::int64_t x = job.left & ~std::int64_t{1};
  const auto before = static_cast<std::int32_t>(job.left - x);
  const std::int32_t width = before + job.extent;
  first = row + before;
  std::int16_t* const last = row + 2 * job.sum_plane;
  SumPlanes to{{row, row + job.sum_plane, last}};
  const float gain = tap.unit / static_cast<float>(1 << s.bits);
  switch (image.format) {
    case PixelFormat::kNv12:
      sum_yuv<L, PixelFormat::kNv12>(strips, s, x, width, to);
      return gain;
    case PixelFormat::kNv21:
      sum_yuv<L, PixelFormat::kNv21>(strips, s, x, width, to);
      return gain;
    case PixelFormat::kI420:
      sum_yuv<L, PixelFormat::kI420>(strips, s, x, width, to);
      return gain;
    case PixelFormat::kYuyv:
      sum_yuv<L, PixelFormat::kYuyv>(strips, s, x, width, to);
      return gain;
    case PixelFormat::kUyvy:
      sum_yuv<L, PixelFormat::kUyvy>(strips, s, x, width, to);
      return gain;
    default:
      break;
  }
  const BayerOrder order = bayer_order(image.format);
  if (!order.even_is_red) to = SumPlanes{{last, to.plane[1], row}};
  (strips.y & 1) == order.even_row ? sum_bayer<L, 0>(strips, s, x, width, to)
                                   : sum_bayer<L, 1>(strips, s, x, width, to);
  return gain;
}

}  // namespace algan::cpu::ALGAN_PATH
