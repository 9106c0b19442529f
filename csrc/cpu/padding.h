// What a letterboxed crop leaves of its slot.
#pragma once

#include <algorithm>

#include "algan/sample.h"

namespace algan::cpu {

template <typename T>
void fill_beside(const InputSpec& spec, bool interleaved, const Region& region, const T* value,
                 T* slot) {
  const auto channels = static_cast<std::int32_t>(spec.channels());
  const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(spec.height_px) * spec.width_px;
  const auto fill = [&](std::int32_t y, std::int32_t begin, std::int32_t end) {
    const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(y) * spec.width_px;
    for (std::int32_t c = 0; c < channels; ++c) {
      if (!interleaved) {
        std::fill(slot + c * plane + row + begin, slot + c * plane + row + end, value[c]);
        continue;
      }
      for (std::int32_t x = begin; x < end; ++x) slot[(row + x) * channels + c] = value[c];
    }
  };
  for (std::int32_t y = 0; y < spec.height_px; ++y) {
    if (y < region.top || y >= region.top + region.height) {
      fill(y, 0, spec.width_px);
    } else {
      fill(y, 0, region.left);
      fill(y, region.left + region.width, spec.width_px);
    }
  }
}

// Writes the pad level, normalised like any pixel, around `region` of the slot.
inline void pad_slot(const InputSpec& spec, const Slots& slots, const Normalisation& n,
                     const Region& region, std::uint8_t* slot) {
  float value[5];
  pad_pixel(n, value);
  append_pooled(n, value);
  const bool interleaved = slots.layout == Layout::kNhwc;
  if (slots.element == Element::kFloat32) {
    return fill_beside(spec, interleaved, region, value, reinterpret_cast<float*>(slot));
  }
  std::uint16_t halves[5];
  std::uint8_t bytes[5];
  for (int c = 0; c < 5; ++c) {
    halves[c] = half_bits(value[c]);
    bytes[c] = round_byte(value[c]);
  }
  if (slots.element == Element::kUint8) return fill_beside(spec, interleaved, region, bytes, slot);
  fill_beside(spec, interleaved, region, halves, reinterpret_cast<std::uint16_t*>(slot));
}

}  // namespace algan::cpu
