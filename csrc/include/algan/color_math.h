/// @file
/// From a pixel as the camera delivers it to red, green and blue bytes: once, in integers, so that
/// every path on every machine gives the same bytes.
///
///   Bayer  the missing colours are means of the 2 or 4 nearest pixels of that colour, rounded half
///          up; beyond the image's edge the image is mirrored about its first and last pixels
///   YUV    16-bit fixed point, 6 fraction bits; within 1 of the real-valued formula:
///          R = Y' + a V', G = Y' - b U' - c V', B = Y' + d U', each clamped to 0..255; Y below
///          black counts as black
///   grey16 min(v, white) * 255 / white, rounded half up
#pragma once

#include "algan/image_view.h"
#include "algan/pixel_math.h"

namespace algan {

/// Factors for mul_high_round: Y' = mul(max(Y - y_offset, 0) << 7, y), the others from (U or V -
/// 128) << 8.
struct YuvFactors {
  std::int16_t y_offset, y, v_to_red, u_to_green, v_to_green, u_to_blue;
};

ALGAN_HD YuvFactors yuv_factors(YuvRange range) {
  switch (range) {
    case YuvRange::kBt601Full:
      return YuvFactors{0, 16384, 11485, 2819, 5850, 14516};
    case YuvRange::kBt709Limited:
      return YuvFactors{16, 19077, 14686, 1747, 4366, 17305};
    case YuvRange::kBt709Full:
      return YuvFactors{0, 16384, 12901, 1535, 3835, 15201};
    default:
      return YuvFactors{16, 19077, 13075, 3209, 6660, 16525};
  }
}

/// (a * b) / 2^15, rounded; pmulhrsw and sqrdmulh do the same.
ALGAN_HD std::int32_t mul_high_round(std::int32_t a, std::int32_t b) {
  return (a * b + (1 << 14)) >> 15;
}

ALGAN_HD std::uint8_t clamp_byte(std::int32_t value) {
  return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

/// `rgb` gets red, green and blue.
ALGAN_HD void yuv_to_rgb(const YuvFactors& f, std::int32_t y, std::int32_t u, std::int32_t v,
                         std::uint8_t rgb[3]) {
  const std::int32_t above_black = y > f.y_offset ? y - f.y_offset : 0;
  const std::int32_t luma = mul_high_round(above_black * 128, f.y) + 32;
  const std::int32_t u_part = (u - 128) * 256;
  const std::int32_t v_part = (v - 128) * 256;
  rgb[0] = clamp_byte((luma + mul_high_round(v_part, f.v_to_red)) >> 6);
  rgb[1] = clamp_byte(
      (luma - mul_high_round(u_part, f.u_to_green) - mul_high_round(v_part, f.v_to_green)) >> 6);
  rgb[2] = clamp_byte((luma + mul_high_round(u_part, f.u_to_blue)) >> 6);
}

/// 255 v is exact in float32 and the quotient correctly rounded, so this is round-half-up exactly.
ALGAN_HD std::uint8_t grey16_to_byte(std::uint16_t value, float white) {
  const float v = static_cast<float>(value) < white ? static_cast<float>(value) : white;
  return static_cast<std::uint8_t>(v * 255.0F / white + 0.5F);
}

/// -1 and `limit` are mirrored inwards, which keeps a Bayer pattern's phase.
ALGAN_HD std::int64_t mirror_pixel(std::int64_t i, std::int64_t limit) {
  if (limit == 1) return 0;
  if (i < 0) return -i;
  return i < limit ? i : 2 * limit - 2 - i;
}

/// Where red lies in a Bayer image's first two rows and columns.
struct BayerPhase {
  std::int32_t red_row, red_column;
};

ALGAN_HD BayerPhase bayer_phase(PixelFormat format) {
  return BayerPhase{
      format == PixelFormat::kBayerBggr8 || format == PixelFormat::kBayerGbrg8 ? 1 : 0,
      format == PixelFormat::kBayerBggr8 || format == PixelFormat::kBayerGrbg8 ? 1 : 0};
}

/// The colours at (y, x) of a Bayer image.
ALGAN_HD void bayer_to_rgb(const ImageView& image, std::int64_t y, std::int64_t x,
                           std::uint8_t rgb[3]) {
  const std::int64_t left = mirror_pixel(x - 1, image.width_px);
  const std::int64_t right = mirror_pixel(x + 1, image.width_px);
  const std::uint8_t* row = image.data + y * image.row_stride;
  const std::uint8_t* above = image.data + mirror_pixel(y - 1, image.height_px) * image.row_stride;
  const std::uint8_t* below = image.data + mirror_pixel(y + 1, image.height_px) * image.row_stride;
  const auto beside = static_cast<std::uint8_t>((row[left] + row[right] + 1) >> 1);
  const auto upright = static_cast<std::uint8_t>((above[x] + below[x] + 1) >> 1);
  const BayerPhase phase = bayer_phase(image.format);
  const bool red_row = (y & 1) == phase.red_row;
  const bool red_column = (x & 1) == phase.red_column;
  if (red_row != red_column) {
    rgb[0] = red_row ? beside : upright;
    rgb[1] = row[x];
    rgb[2] = red_row ? upright : beside;
    return;
  }
  const auto cross =
      static_cast<std::uint8_t>((row[left] + row[right] + above[x] + below[x] + 2) >> 2);
  const auto corners =
      static_cast<std::uint8_t>((above[left] + above[right] + below[left] + below[right] + 2) >> 2);
  rgb[0] = red_row ? row[x] : corners;
  rgb[1] = cross;
  rgb[2] = red_row ? corners : row[x];
}

/// The pixel's red, green and blue, whatever the format; grey stands for all three.
ALGAN_HD void load_unmasked(const ImageView& image, std::int64_t y, std::int64_t x,
                            std::uint8_t rgb[3]) {
  const std::uint8_t* row = image.data + y * image.row_stride;
  switch (image.format) {
    case PixelFormat::kBgr8:
    case PixelFormat::kBgra8:
    case PixelFormat::kRgb8:
    case PixelFormat::kRgba8: {
      const bool four = image.format == PixelFormat::kBgra8 || image.format == PixelFormat::kRgba8;
      const bool bgr = image.format == PixelFormat::kBgr8 || image.format == PixelFormat::kBgra8;
      const std::uint8_t* pixel = row + (four ? 4 : 3) * x;
      rgb[0] = pixel[bgr ? 2 : 0];
      rgb[1] = pixel[1];
      rgb[2] = pixel[bgr ? 0 : 2];
      return;
    }
    case PixelFormat::kGrey8:
      rgb[0] = rgb[1] = rgb[2] = row[x];
      return;
    case PixelFormat::kGrey16: {
      const auto value = static_cast<std::uint16_t>(row[2 * x] | row[2 * x + 1] << 8);
      rgb[0] = rgb[1] = rgb[2] = grey16_to_byte(value, static_cast<float>(image.white_level));
      return;
    }
    case PixelFormat::kNv12:
    case PixelFormat::kNv21: {
      const std::uint8_t* pair = image.chroma + (y / 2) * image.chroma_stride + (x / 2) * 2;
      const bool u_first = image.format == PixelFormat::kNv12;
      return yuv_to_rgb(yuv_factors(image.yuv), row[x], pair[u_first ? 0 : 1],
                        pair[u_first ? 1 : 0], rgb);
    }
    case PixelFormat::kI420: {
      const std::ptrdiff_t at = (y / 2) * image.chroma_stride + x / 2;
      return yuv_to_rgb(yuv_factors(image.yuv), row[x], image.chroma[at], image.chroma_v[at], rgb);
    }
    case PixelFormat::kYuyv: {
      const std::uint8_t* pair = row + (x / 2) * 4;
      return yuv_to_rgb(yuv_factors(image.yuv), row[2 * x], pair[1], pair[3], rgb);
    }
    case PixelFormat::kUyvy: {
      const std::uint8_t* pair = row + (x / 2) * 4;
      return yuv_to_rgb(yuv_factors(image.yuv), row[2 * x + 1], pair[0], pair[2], rgb);
    }
    default:
      return bayer_to_rgb(image, y, x, rgb);
  }
}

/// The same, with the mask.
ALGAN_HD void load_rgb(const ImageView& image, std::int64_t y, std::int64_t x,
                       std::uint8_t rgb[3]) {
  if (image.mask != nullptr && image.mask[y * image.mask_stride + x] == 0) {
    rgb[0] = rgb[1] = rgb[2] = image.masked;
    return;
  }
  load_unmasked(image, y, x, rgb);
}

}  // namespace algan
