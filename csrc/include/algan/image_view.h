// A non-owning view of 8-bit pixels.
#pragma once

#include <cstddef>
#include <cstdint>

namespace algan {

enum class PixelFormat { kBgr8, kRgb8, kGrey8 };

struct ImageView {
  const std::uint8_t* data;  // pixel (0, 0); channels of one pixel are neighbours
  std::int64_t height_px;
  std::int64_t width_px;
  std::ptrdiff_t row_stride;  // bytes from a row to the next; may be negative or padded
  PixelFormat format;

  int channels() const { return format == PixelFormat::kGrey8 ? 1 : 3; }
};

}  // namespace algan
