// One crop to be turned into one slot: the only thing that crosses into a path's code.
#pragma once

#include <cstddef>
#include <cstdint>

#include "axis_plan.h"

namespace algan::cpu {

// The SIMD paths may read this many bytes past the last pixel of a crop's row.
constexpr std::ptrdiff_t kOverread = 16;

struct BoxJob {
  const std::uint8_t* source;  // first pixel of the crop
  std::ptrdiff_t row_stride;
  const std::uint8_t* readable_end;  // one past the image's byte with the highest address
  std::int32_t channels;             // 1 or 3
  std::int32_t red_plane;            // 0 for RGB, 2 for BGR
  const AxisPlan* x;
  const AxisPlan* y;
  float scale[3];  // RGB: 1 / (255 std)
  float bias[3];   // RGB: -mean / std
  bool pooled;
  bool stream;  // bypass the cache; then all rows of `out` are whole cache lines
  float* out;   // the slot
  // Scratch, each aligned to 64 bytes:
  void* row;             // one row, vertically filtered, in the path's own format of up to 4 bytes
                         // a channel; readable for the widest tap and kOverread past the end
  float* planes;         // [2][3][x->padded_size]: two rows, horizontally filtered
  std::uint8_t* copied;  // [2][extent * channels + kOverread]: rows that must not be read past
};

using RunBox = void (*)(const BoxJob&);

}  // namespace algan::cpu
