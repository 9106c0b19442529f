// Camera formats to interleaved bytes, a run of a row at a time, in the lanes of planar_bayer.h and
// planar_yuv.h.
#pragma once

#include "planar_tap.h"

namespace algan::cpu::ALGAN_PATH {

template <typename L>
ALGAN_HD void store_colours(const Colours<L>& c, bool red_last, std::uint8_t* out) {
  typename L::V bytes[3];
  for (int p = 0; p < 3; ++p) bytes[p] = L::flip(c.even[p], L::template up<8>(c.odd[p]));
  L::store_interleaved(out, bytes[red_last ? 2 : 0], bytes[1], bytes[red_last ? 0 : 2]);
}

// Pixels from x on, all inside the image, a multiple of 64; x is even but in Bayer images.
template <typename L>
struct PlanarRun {
  static constexpr std::int32_t kWidth = TapStrips<L>::kWidth;

  const ImageView& image;
  std::int64_t y, x;
  std::int32_t pixels;
  std::uint8_t* out;

  template <PixelFormat kFormat>
  void yuv() const {
    const TapStrips<L> strips{image, nullptr, y, 1};
    const YuvFactors factors = yuv_factors(image.yuv);
    for (std::int32_t i = 0; i < pixels; i += kWidth) {
      const Strip strip = strips.yuv(x + i);
      store_colours<L>(YuvRows<L, kFormat>(strip, factors).next(), false, out + 3 * i);
    }
  }

  // From an odd pixel on, odd ones are the even ones of the strips.
  void bayer() const {
    const BayerOrder order = bayer_order(image.format);
    const bool odd = (x & 1) != 0;
    const bool red_last = order.even_is_red == odd;
    ((y & 1) == order.even_row) != odd ? bayer_rows<0>(red_last) : bayer_rows<1>(red_last);
  }

  template <int kPhase>
  void bayer_rows(bool red_last) const {
    std::uint8_t edge[3 * (kWidth + 2)];
    const TapStrips<L> strips{image, edge, y, 1};
    for (std::int32_t i = 0; i < pixels; i += kWidth) {
      const Strip strip = strips.bayer(x + i);
      store_colours<L>(BayerRows<L, kPhase>(strip, 0).next(), red_last, out + 3 * i);
    }
  }

  void convert() const {
    switch (image.format) {
      case PixelFormat::kNv12:
        return yuv<PixelFormat::kNv12>();
      case PixelFormat::kNv21:
        return yuv<PixelFormat::kNv21>();
      case PixelFormat::kI420:
        return yuv<PixelFormat::kI420>();
      case PixelFormat::kYuyv:
        return yuv<PixelFormat::kYuyv>();
      case PixelFormat::kUyvy:
        return yuv<PixelFormat::kUyvy>();
      default:
        return bayer();
    }
  }
};

}  // namespace algan::cpu::ALGAN_PATH
