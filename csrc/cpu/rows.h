// Rows of any format to RGB, BGR or grey bytes, 64 pixels at a time. Byte for byte what
// color_math.h gives; Bayer and YUV here only for the path without lanes, in loops that compilers
// turn into vectors.
#pragma once

#include <cstring>

#include "algan/color_math.h"
#include "box_job.h"
#include "planar_rows.h"

namespace algan::cpu::ALGAN_PATH {

constexpr std::int32_t kRowBlock = 64;

// Green, and the colour that a row of a Bayer image has besides, and the one it lacks.
struct BayerBlock {
  alignas(64) std::uint8_t own[kRowBlock], green[kRowBlock], other[kRowBlock];
};

// x is even. Each colour goes with two pixels.
template <typename Ops>
void yuv_block(const ImageView& image, std::int64_t y, std::int64_t x, std::uint8_t* out) {
  const std::uint8_t* row = image.data + y * image.row_stride;
  const YuvFactors factors = yuv_factors(image.yuv);
  alignas(64) std::uint8_t luma[kRowBlock], colours[kRowBlock], u[kRowBlock], v[kRowBlock];
  if (image.format == PixelFormat::kYuyv || image.format == PixelFormat::kUyvy) {
    const bool luma_first = image.format == PixelFormat::kYuyv;
    std::uint8_t* even = luma_first ? luma : colours;
    std::uint8_t* odd = luma_first ? colours : luma;
    Ops::split_pairs(row + 2 * x, even, odd);
    Ops::split_pairs(row + 2 * x + kRowBlock, even + kRowBlock / 2, odd + kRowBlock / 2);
    Ops::split_pairs(colours, u, v);
    return Ops::yuv_block(luma, u, v, factors, out);
  }
  const std::uint8_t* chroma = image.chroma + (y / 2) * image.chroma_stride;
  if (image.format == PixelFormat::kI420) {
    const std::uint8_t* other = image.chroma_v + (y / 2) * image.chroma_stride;
    return Ops::yuv_block(row + x, chroma + x / 2, other + x / 2, factors, out);
  }
  const bool u_first = image.format == PixelFormat::kNv12;
  Ops::split_pairs(chroma + x, u_first ? u : v, u_first ? v : u);
  Ops::yuv_block(row + x, u, v, factors, out);
}

// `to` gets pixels x - 1 to x + kRowBlock of a row, mirrored at the image's edge.
ALGAN_HD void load_mirrored(const ImageView& image, std::int64_t y, std::int64_t x,
                            std::uint8_t* to) {
  const std::uint8_t* row = image.data + mirror_pixel(y, image.height_px) * image.row_stride;
  std::memcpy(to + 1, row + x, kRowBlock);
  to[0] = row[mirror_pixel(x - 1, image.width_px)];
  to[kRowBlock + 1] = row[mirror_pixel(x + kRowBlock, image.width_px)];
}

// Rounded half up, without leaving eight bits.
ALGAN_HD std::uint8_t average(std::uint8_t a, std::uint8_t b) {
  return static_cast<std::uint8_t>((a + b + 1) >> 1);
}

// (a + b + c + d + 2) / 4: where both averages were rounded up and their sum is odd, one too much.
ALGAN_HD std::uint8_t average4(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d) {
  const std::uint8_t ab = average(a, b);
  const std::uint8_t cd = average(c, d);
  const auto surplus = static_cast<std::uint8_t>(((a ^ b) | (c ^ d)) & (ab ^ cd) & 1);
  return static_cast<std::uint8_t>(average(ab, cd) - surplus);
}

template <typename Ops>
void bayer_block(const ImageView& image, std::int64_t y, std::int64_t x, std::uint8_t* out) {
  BayerBlock block;
  std::uint8_t above[kRowBlock + 2], row[kRowBlock + 2], below[kRowBlock + 2];
  load_mirrored(image, y - 1, x, above);
  load_mirrored(image, y, x, row);
  load_mirrored(image, y + 1, x, below);
  const BayerPhase phase = bayer_phase(image.format);
  const bool red_row = (y & 1) == phase.red_row;
  // Parity of the columns of the row's own colour; the others are green.
  const std::int32_t own = red_row ? phase.red_column : 1 - phase.red_column;
  const auto first_parity = static_cast<std::int32_t>(x & 1);
  for (std::int32_t k = 0; k < kRowBlock; ++k) {
    const auto mask = static_cast<std::uint8_t>(((k + first_parity) & 1) == own ? 0xFF : 0);
    const auto pick = [mask](std::uint8_t at_own, std::uint8_t at_green) {
      return static_cast<std::uint8_t>((at_own & mask) | (at_green & ~mask));
    };
    const std::uint8_t beside = average(row[k], row[k + 2]);
    const std::uint8_t upright = average(above[k + 1], below[k + 1]);
    block.own[k] = pick(row[k + 1], beside);
    block.green[k] = pick(average4(row[k], row[k + 2], above[k + 1], below[k + 1]), row[k + 1]);
    block.other[k] = pick(average4(above[k], above[k + 2], below[k], below[k + 2]), upright);
  }
  Ops::interleave(red_row ? block.own : block.other, block.green, red_row ? block.other : block.own,
                  out);
}

// kRowBlock pixels from x on, all inside the image, as bytes of the row; may write kOverread more.
template <typename Ops>
void convert_block(const ImageView& image, std::int64_t y, std::int64_t x, std::uint8_t* out) {
  const std::uint8_t* row = image.data + y * image.row_stride;
  switch (image.format) {
    case PixelFormat::kBgr8:
    case PixelFormat::kRgb8:
      std::memcpy(out, row + 3 * x, 3 * kRowBlock);
      return;
    case PixelFormat::kGrey8:
      std::memcpy(out, row + x, kRowBlock);
      return;
    case PixelFormat::kGrey16:
      return Ops::grey16_block(row + 2 * x, static_cast<float>(image.white_level), out);
    case PixelFormat::kBgra8:
    case PixelFormat::kRgba8:
      return Ops::drop_fourth(row + 4 * x, out);
    default:
      break;
  }
  is_bayer(image.format) ? bayer_block<Ops>(image, y, x, out) : yuv_block<Ops>(image, y, x, out);
}

// The same for a multiple of kRowBlock pixels.
template <typename Ops>
void convert_run(const ImageView& image, std::int64_t y, std::int64_t x, std::int32_t pixels,
                 std::uint8_t* out) {
  if constexpr (Ops::kPlanar) {
    if (image.format >= PixelFormat::kBayerRggb8) {
      return PlanarRun<typename Ops::Lanes>{image, y, x, pixels, out}.convert();
    }
  }
  const std::int32_t channels = image.grey() ? 1 : 3;
  for (std::int32_t i = 0; i < pixels; i += kRowBlock) {
    convert_block<Ops>(image, y, x + i, out + channels * i);
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

// A block at x of which the crop wants a part.
template <typename Ops>
void convert_part(const BoxJob& job, std::int64_t y, std::int64_t x, std::uint8_t* out) {
  alignas(64) std::uint8_t block[3 * kRowBlock + kOverread];
  convert_run<Ops>(*job.image, y, x, kRowBlock, block);
  const std::int64_t end = job.left + job.extent;
  const std::int64_t first = x > job.left ? x : job.left;
  const std::int64_t last = x + kRowBlock < end ? x + kRowBlock : end;
  std::memcpy(out + job.channels * (first - job.left), block + job.channels * (first - x),
              static_cast<std::size_t>(job.channels * (last - first)));
}

// Row y of the crop, extent pixels; up to kOverread bytes more are written.
template <typename Ops>
void convert_row(const BoxJob& job, std::int32_t crop_y, std::uint8_t* out) {
  const ImageView& image = *job.image;
  const std::int64_t y = job.top + crop_y;
  const std::int64_t end = job.left + job.extent;
  const std::int64_t last_block = image.width_px - kRowBlock;
  if (last_block < 0) {
    convert_pixels(job, y, out);
  } else {
    // From an even pixel on, and widths of YUV images are even: it shares colours between two
    // pixels.
    for (std::int64_t x = job.left & ~std::int64_t{1}; x < end;) {
      const auto whole = static_cast<std::int32_t>((end - x) / kRowBlock * kRowBlock);
      if (x >= job.left && whole > 0) {
        convert_run<Ops>(image, y, x, whole, out + job.channels * (x - job.left));
        x += whole;
        continue;
      }
      if (x > last_block) x = last_block;
      convert_part<Ops>(job, y, x, out);
      x += kRowBlock;
    }
  }
  if (image.mask != nullptr) apply_mask(job, y, out);
}

}  // namespace algan::cpu::ALGAN_PATH
