// Rows of any format to RGB, BGR or grey bytes, 64 pixels at a time: loops that compilers turn into
// vectors, once for each path. Byte for byte what color_math.h gives.
#pragma once

#include <cstring>

#include "algan/color_math.h"
#include "box_job.h"

namespace algan::cpu::ALGAN_PATH {

constexpr std::int32_t kRowBlock = 64;

struct ColourBlock {
  alignas(64) std::uint8_t r[kRowBlock], g[kRowBlock], b[kRowBlock];
};

struct YuvBlock {
  alignas(64) std::uint8_t y[kRowBlock], u[kRowBlock], v[kRowBlock];
};

// Each colour difference goes with two pixels.
ALGAN_HD void spread_pairs(const std::uint8_t* pairs, int first, int step, std::uint8_t* to) {
  for (std::int32_t k = 0; k < kRowBlock / 2; ++k) {
    to[2 * k] = to[2 * k + 1] = pairs[step * k + first];
  }
}

// x is even.
inline void load_yuv(const ImageView& image, std::int64_t y, std::int64_t x, YuvBlock* out) {
  const std::uint8_t* row = image.data + y * image.row_stride;
  const bool planar = image.format == PixelFormat::kI420;
  if (planar || image.format == PixelFormat::kNv12 || image.format == PixelFormat::kNv21) {
    std::memcpy(out->y, row + x, kRowBlock);
    const std::ptrdiff_t at = (y / 2) * image.chroma_stride + (planar ? x / 2 : x);
    if (planar) {
      spread_pairs(image.chroma + at, 0, 1, out->u);
      spread_pairs(image.chroma_v + at, 0, 1, out->v);
    } else {
      const int u = image.format == PixelFormat::kNv12 ? 0 : 1;
      spread_pairs(image.chroma + at, u, 2, out->u);
      spread_pairs(image.chroma + at, 1 - u, 2, out->v);
    }
    return;
  }
  const int luma = image.format == PixelFormat::kYuyv ? 0 : 1;
  const std::uint8_t* from = row + 2 * x;
  for (std::int32_t k = 0; k < kRowBlock; ++k) out->y[k] = from[2 * k + luma];
  spread_pairs(from, 1 - luma, 4, out->u);
  spread_pairs(from, 3 - luma, 4, out->v);
}

inline void yuv_block(const YuvBlock& in, const YuvFactors f, ColourBlock* out) {
  for (std::int32_t k = 0; k < kRowBlock; ++k) {
    std::uint8_t rgb[3];
    yuv_to_rgb(f, in.y[k], in.u[k], in.v[k], rgb);
    out->r[k] = rgb[0];
    out->g[k] = rgb[1];
    out->b[k] = rgb[2];
  }
}

// `to` gets pixels x - 1 to x + kRowBlock of a row, mirrored at the image's edge.
ALGAN_HD void load_mirrored(const ImageView& image, std::int64_t y, std::int64_t x,
                            std::uint8_t* to) {
  const std::uint8_t* row = image.data + mirror_pixel(y, image.height_px) * image.row_stride;
  std::memcpy(to + 1, row + x, kRowBlock);
  to[0] = row[mirror_pixel(x - 1, image.width_px)];
  to[kRowBlock + 1] = row[mirror_pixel(x + kRowBlock, image.width_px)];
}

inline void bayer_block(const ImageView& image, std::int64_t y, std::int64_t x, ColourBlock* out) {
  std::uint8_t above[kRowBlock + 2], row[kRowBlock + 2], below[kRowBlock + 2];
  load_mirrored(image, y - 1, x, above);
  load_mirrored(image, y, x, row);
  load_mirrored(image, y + 1, x, below);
  const BayerPhase phase = bayer_phase(image.format);
  const bool red_row = (y & 1) == phase.red_row;
  // Columns of the row's own colour (red or blue); the others are green.
  const std::int32_t own = red_row ? phase.red_column : 1 - phase.red_column;
  std::uint8_t* own_colour = red_row ? out->r : out->b;
  std::uint8_t* other_colour = red_row ? out->b : out->r;
  const std::int32_t odd_start = static_cast<std::int32_t>(x & 1);
  for (std::int32_t k = 0; k < kRowBlock; ++k) {
    const std::uint8_t mask = ((k + odd_start) & 1) == own ? 0xFF : 0;
    const auto pick = [mask](std::int32_t at_own, std::int32_t at_green) {
      return static_cast<std::uint8_t>((at_own & mask) | (at_green & ~mask));
    };
    const std::int32_t beside = (row[k] + row[k + 2] + 1) >> 1;
    const std::int32_t upright = (above[k + 1] + below[k + 1] + 1) >> 1;
    const std::int32_t cross = (row[k] + row[k + 2] + above[k + 1] + below[k + 1] + 2) >> 2;
    const std::int32_t corners = (above[k] + above[k + 2] + below[k] + below[k + 2] + 2) >> 2;
    own_colour[k] = pick(row[k + 1], beside);
    out->g[k] = pick(cross, row[k + 1]);
    other_colour[k] = pick(corners, upright);
  }
}

inline void grey16_block(const ImageView& image, std::int64_t y, std::int64_t x,
                         std::uint8_t* out) {
  std::uint16_t values[kRowBlock];
  std::memcpy(values, image.data + y * image.row_stride + 2 * x, sizeof(values));
  const auto white = static_cast<float>(image.white_level);
  for (std::int32_t k = 0; k < kRowBlock; ++k) out[k] = grey16_to_byte(values[k], white);
}

// kRowBlock pixels from x on, all inside the image, as bytes of the row; may write kOverread more.
template <typename Ops>
void convert_block(const ImageView& image, std::int64_t y, std::int64_t x, std::uint8_t* out) {
  const std::uint8_t* row = image.data + y * image.row_stride;
  ColourBlock block;
  switch (image.format) {
    case PixelFormat::kBgr8:
    case PixelFormat::kRgb8:
      std::memcpy(out, row + 3 * x, 3 * kRowBlock);
      return;
    case PixelFormat::kGrey8:
      std::memcpy(out, row + x, kRowBlock);
      return;
    case PixelFormat::kGrey16:
      return grey16_block(image, y, x, out);
    case PixelFormat::kBgra8:
    case PixelFormat::kRgba8:
      return Ops::drop_fourth(row + 4 * x, out);
    case PixelFormat::kNv12:
    case PixelFormat::kNv21:
    case PixelFormat::kI420:
    case PixelFormat::kYuyv:
    case PixelFormat::kUyvy: {
      YuvBlock yuv;
      load_yuv(image, y, x, &yuv);
      yuv_block(yuv, yuv_factors(image.yuv), &block);
      return Ops::interleave(block.r, block.g, block.b, out);
    }
    default:
      bayer_block(image, y, x, &block);
      return Ops::interleave(block.r, block.g, block.b, out);
  }
}

// Images narrower than a block, pixel by pixel.
inline void convert_pixels(const BoxJob& job, std::int64_t y, std::uint8_t* out) {
  for (std::int64_t i = 0; i < job.extent; ++i) {
    std::uint8_t rgb[3];
    load_unmasked(*job.image, y, job.left + i, rgb);
    for (std::int32_t c = 0; c < job.channels; ++c) {
      out[job.channels * i + c] = rgb[job.red_plane == 0 ? c : 2 - c];
    }
  }
}

inline void apply_mask(const BoxJob& job, std::int64_t y, std::uint8_t* out) {
  const std::uint8_t* mask = job.image->mask + y * job.image->mask_stride + job.left;
  for (std::int64_t i = 0; i < job.extent; ++i) {
    if (mask[i] != 0) continue;
    std::memset(out + job.channels * i, job.image->masked, static_cast<std::size_t>(job.channels));
  }
}

// Row y of the crop, extent pixels; up to kOverread bytes more are written.
template <typename Ops>
void convert_row(const BoxJob& job, std::int32_t crop_y, std::uint8_t* out) {
  const ImageView& image = *job.image;
  const std::int64_t y = job.top + crop_y;
  if (image.width_px < kRowBlock) {
    convert_pixels(job, y, out);
  } else {
    const std::int64_t end = job.left + job.extent;
    std::int64_t x = job.left & ~std::int64_t{1};  // YUV shares colours between two pixels
    alignas(64) std::uint8_t block[3 * kRowBlock + kOverread];
    while (x < end) {
      const bool inside = x >= job.left && x + kRowBlock <= end;
      // Widths of YUV images are even, so that the last block starts at an even pixel.
      if (!inside && x + kRowBlock > image.width_px) x = image.width_px - kRowBlock;
      if (inside) {
        convert_block<Ops>(image, y, x, out + job.channels * (x - job.left));
      } else {
        convert_block<Ops>(image, y, x, block);
        const std::int64_t first = x > job.left ? x : job.left;
        const std::int64_t last = x + kRowBlock < end ? x + kRowBlock : end;
        std::memcpy(out + job.channels * (first - job.left), block + job.channels * (first - x),
                    static_cast<std::size_t>(job.channels * (last - first)));
      }
      x += kRowBlock;
    }
  }
  if (image.mask != nullptr) apply_mask(job, y, out);
}

}  // namespace algan::cpu::ALGAN_PATH
