// YUV pixels to three planes, as 16-bit lanes that are never stored: yuv_to_rgb of color_math.h.
#pragma once

#include "algan/color_math.h"
#include "planar_bayer.h"

namespace algan::cpu::ALGAN_PATH {

// What U and V add to the luma of a pixel, plus kYuvOffset, at which unsigned saturation clamps:
// luma + term stops at 65535, which stands for 255 and its fraction, and what is then below the
// offset for a negative number.
template <typename L>
struct YuvTerms {
  typename L::V red, green, blue;
};

constexpr std::int32_t kYuvMost = (256 << 6) - 1;
constexpr auto kYuvOffset = static_cast<std::uint16_t>(65535 - kYuvMost);

// u and v: one byte a lane.
template <typename L>
ALGAN_HD YuvTerms<L> yuv_terms(typename L::V u, typename L::V v, const YuvFactors& f) {
  const auto times = [](typename L::V a, std::int16_t factor) {
    return L::mul_round_signed(a, L::splat(static_cast<std::uint16_t>(factor)));
  };
  // Half of 6 fraction bits goes along. More than kYuvMost clamps whatever the luma.
  const auto term = [](typename L::V a) {
    const auto most = L::splat(static_cast<std::uint16_t>(kYuvMost));
    return L::add(L::smaller_signed(L::add(a, L::splat(32)), most), L::splat(kYuvOffset));
  };
  const auto sign = L::splat(0x8000);
  const auto u_part = L::flip(L::template up<8>(u), sign);
  const auto v_part = L::flip(L::template up<8>(v), sign);
  const auto green = L::add(times(u_part, f.u_to_green), times(v_part, f.v_to_green));
  return YuvTerms<L>{term(times(v_part, f.v_to_red)), L::sub(L::splat(kYuvOffset + 32), green),
                     term(times(u_part, f.u_to_blue))};
}

// y: one byte a lane.
template <typename L>
ALGAN_HD typename L::V yuv_luma(typename L::V y, const YuvFactors& f) {
  const auto black = L::splat(static_cast<std::uint16_t>(f.y_offset << 7));
  return L::mul_round_signed(L::sub_saturated(L::template up<7>(y), black),
                             L::splat(static_cast<std::uint16_t>(f.y)));
}

template <typename L>
ALGAN_HD void yuv_pixels(typename L::V luma, const YuvTerms<L>& terms, typename L::V rgb[3]) {
  const auto clamped = [luma](typename L::V term) {
    return L::template down<6>(
        L::sub_saturated(L::add_saturated(luma, term), L::splat(kYuvOffset)));
  };
  rgb[0] = clamped(terms.red);
  rgb[1] = clamped(terms.green);
  rgb[2] = clamped(terms.blue);
}

}  // namespace algan::cpu::ALGAN_PATH
