/// @file
/// Non-owning views of pixels, as cameras and decoders deliver them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "algan/host_device.h"

namespace algan {

/// How the bytes of an image are to be read.
enum class PixelFormat : std::int32_t {
  kBgr8,        ///< 3 bytes a pixel
  kRgb8,        ///< the same, red first
  kBgra8,       ///< 4 bytes a pixel, the fourth is ignored
  kRgba8,       ///< the same, red first
  kGrey8,       ///< 1 byte a pixel
  kGrey16,      ///< 2 bytes a pixel, little-endian; 0 to white_level become 0 to 255
  kBayerRggb8,  ///< 1 byte a pixel; the name is the order of the first two rows
  kBayerBggr8,  ///< the same, blue first
  kBayerGrbg8,  ///< the same, green then red
  kBayerGbrg8,  ///< the same, green then blue
  kNv12,        ///< plane of Y, then plane of (U, V) pairs at half the size
  kNv21,        ///< the same with (V, U)
  kI420,        ///< planes of Y, U and V, the last two at half the size
  kYuyv,        ///< 4 bytes for two pixels: Y0 U Y1 V
  kUyvy,        ///< the same as U Y0 V Y1
};

/// How Y, U and V were made from RGB. Limited: Y is 16 to 235; full: 0 to 255 (JPEG).
enum class YuvRange : std::int32_t { kBt601Limited, kBt601Full, kBt709Limited, kBt709Full };

/// An image that lies somewhere in the caller's memory, which must outlive the view.
///
/// Pixel (y, x) of the first plane starts at data + y * row_stride + x * pixel_bytes().
/// check_image() says whether a view can be used; that the memory is there, only the caller knows.
struct ImageView {
  const std::uint8_t* data;   ///< pixel (0, 0) of the first plane
  std::int64_t height_px;     ///< 1 to 2^20; even for NV12, NV21 and I420
  std::int64_t width_px;      ///< 1 to 2^20; even for all YUV formats
  std::ptrdiff_t row_stride;  ///< bytes from a row to the next; may be negative or padded
  PixelFormat format;
  YuvRange yuv = YuvRange::kBt601Limited;  ///< of the YUV formats
  std::int32_t white_level = 65535;        ///< of kGrey16, 255 to 65535
  const std::uint8_t* chroma = nullptr;    ///< NV12, NV21: the pairs; I420: U
  const std::uint8_t* chroma_v = nullptr;  ///< I420: V
  std::ptrdiff_t chroma_stride = 0;        ///< bytes from a row of either to the next
  /// Region of interest: (height_px, width_px) bytes, or null; pixels whose byte is 0 are read as
  /// `masked`.
  const std::uint8_t* mask = nullptr;
  std::ptrdiff_t mask_stride = 0;  ///< bytes from a row of the mask to the next
  std::uint8_t masked = 0;         ///< a grey level

  /// Whether all three colours are the same by the format.
  ALGAN_HD bool grey() const {
    return format == PixelFormat::kGrey8 || format == PixelFormat::kGrey16;
  }

  /// Bytes of a pixel in the first plane.
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

  /// Of colour that is not converted: whether red comes before blue.
  ALGAN_HD bool red_first() const {
    return format != PixelFormat::kBgr8 && format != PixelFormat::kBgra8;
  }

  /// Whether rows are filtered where they lie; all others are first brought to RGB or grey bytes.
  ALGAN_HD bool plain() const {
    return mask == nullptr && (format == PixelFormat::kBgr8 || format == PixelFormat::kRgb8 ||
                               format == PixelFormat::kBgra8 || format == PixelFormat::kRgba8 ||
                               format == PixelFormat::kGrey8);
  }
};

}  // namespace algan
