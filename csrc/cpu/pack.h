// Finished float rows to float16 or uint8, and to pixel-by-pixel order.
#pragma once

#include <cstring>

#include "ops_scalar.h"

namespace algan::cpu::ALGAN_PATH {

template <typename T>
ALGAN_HD void interleave_channels(const T* planes, std::ptrdiff_t plane, std::int32_t size,
                                  std::int32_t channels, T* to) {
  for (std::int32_t i = 0; i < size; ++i) {
    for (std::int32_t c = 0; c < channels; ++c) *to++ = planes[c * plane + i];
  }
}

// Planes of converted numbers to their places in the slot.
template <typename T>
ALGAN_HD void store_planes(const Packing& p, const T* planes, std::ptrdiff_t plane,
                           const FinishRow& f, std::int32_t y) {
  T* to = reinterpret_cast<T*>(p.first) + y * p.row_elements;
  if (p.interleaved) return interleave_channels(planes, plane, f.size, f.planes, to);
  for (std::int32_t c = 0; c < f.planes; ++c) {
    std::memcpy(to + c * p.plane_elements, planes + c * plane,
                static_cast<std::size_t>(f.size) * sizeof(T));
  }
}

// Converts whole planes of scratch, then places them.
template <typename Ops>
void pack_row(const Packing& p, const FinishRow& f, std::int32_t y) {
  if (p.element == PackElement::kFloat32) return store_planes(p, f.out, f.plane_floats, f, y);
  const auto count = static_cast<std::int32_t>(f.plane_floats * f.planes);
  if (p.element == PackElement::kFloat16) {
    auto* halves = reinterpret_cast<std::uint16_t*>(p.narrow);
    Ops::to_half(f.out, count, halves);
    return store_planes(p, halves, f.plane_floats, f, y);
  }
  Ops::to_bytes(f.out, count, p.narrow);
  store_planes(p, p.narrow, f.plane_floats, f, y);
}

}  // namespace algan::cpu::ALGAN_PATH
