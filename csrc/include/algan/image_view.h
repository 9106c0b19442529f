// Non-owning views of pixels, as cameras and decoders deliver them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "algan/host_device.h"

namespace algan {

enum class PixelFormat : std::int32_t {
  kBgr8,        // 3 bytes a pixel
  kRgb8,        //
  kBgra8,       // 4 bytes a pixel, the fourth is ignored
  kRgba8,       //
  kGrey8,       // 1 byte a pixel
  kGrey16,      // 2 bytes a pixel in the machine's order; 0 to white_level become 0 to 255
  kBayerRggb8,  // 1 byte a pixel; the name is the order of the first two rows
  kBayerBggr8,
  kBayerGrbg8,
  kBayerGbrg8,
  kNv12,  // plane of Y, then plane of (U, V) pairs at half the size
  kNv21,  // the same with (V, U)
  kI420,  // planes of Y, U and V, the last two at half the size
  kYuyv,  // 4 bytes for two pixels: Y0 U Y1 V
  kUyvy,  // U Y0 V Y1
};

// How Y, U and V were made from RGB. Limited: Y is 16 to 235; full: 0 to 255 (JPEG).
enum class YuvRange : std::int32_t { kBt601Limited, kBt601Full, kBt709Limited, kBt709Full };

struct ImageView {
  const std::uint8_t* data;  // pixel (0, 0); channels of one pixel are neighbours
  std::int64_t height_px;
  std::int64_t width_px;
  std::ptrdiff_t row_stride;  // bytes from a row to the next; may be negative or padded
  PixelFormat format;
  YuvRange yuv = YuvRange::kBt601Limited;
  std::int32_t white_level = 65535;  // of kGrey16, 255 to 65535
  // NV12 and NV21: the pairs; I420: U, then V. Both with chroma_stride.
  const std::uint8_t* chroma = nullptr;
  const std::uint8_t* chroma_v = nullptr;
  std::ptrdiff_t chroma_stride = 0;
  // Region of interest: (height_px, width_px) bytes, or null; pixels whose byte is 0 are read as
  // `masked`, a grey level.
  const std::uint8_t* mask = nullptr;
  std::ptrdiff_t mask_stride = 0;
  std::uint8_t masked = 0;

  ALGAN_HD bool grey() const {
    return format == PixelFormat::kGrey8 || format == PixelFormat::kGrey16;
  }

  // Bytes of a pixel in the first plane.
  ALGAN_HD int pixel_bytes() const {
    switch (format) {
      case PixelFormat::kBgr8:
      case PixelFormat::kRgb8:
        return 3;
      case PixelFormat::kBgra8:
      case PixelFormat::kRgba8:
        return 4;
      case PixelFormat::kGrey16:
      case PixelFormat::kYuyv:
      case PixelFormat::kUyvy:
        return 2;
      default:
        return 1;
    }
  }

  // Whether rows are filtered where they lie; all others are first brought to RGB or grey bytes.
  ALGAN_HD bool plain() const {
    return mask == nullptr && (format == PixelFormat::kBgr8 || format == PixelFormat::kRgb8 ||
                               format == PixelFormat::kBgra8 || format == PixelFormat::kRgba8 ||
                               format == PixelFormat::kGrey8);
  }
};

}  // namespace algan
