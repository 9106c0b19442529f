// One crop to be turned into one slot: the only thing that crosses into a path's code.
#pragma once

#include <cstddef>
#include <cstdint>

#include "algan/image_view.h"
#include "algan/pixel_math.h"
#include "axis_plan.h"

namespace algan::cpu {

// The SIMD paths may read, and the converters write, this many bytes past the last pixel of a row.
constexpr std::ptrdiff_t kOverread = 16;
// Of BoxJob::gathered, for each output of a row.
constexpr std::size_t kGatheredBytes = 16;

enum class PackElement : std::int32_t { kFloat32, kFloat16, kUint8 };

// Where finished rows go that are not float32 NCHW: they are packed from scratch.
struct Packing {
  PackElement element;
  bool interleaved;               // NHWC
  std::uint8_t* first;            // first channel of the first output
  std::ptrdiff_t plane_elements;  // NCHW: from a channel to the next
  std::ptrdiff_t row_elements;    // from a row to the next
  std::uint8_t* narrow;           // scratch: [5][x->padded_size] converted numbers
};

struct BoxJob {
  const ImageView* image;
  std::int64_t top, left;      // first pixel of the crop
  std::int32_t extent;         // pixels of its rows
  const std::uint8_t* source;  // the same in the first plane
  std::ptrdiff_t row_stride;
  const std::uint8_t* readable_end;  // one past the image's byte with the highest address
  bool convert;                      // rows are first brought to RGB, BGR or grey bytes
  bool planar;       // but a path with lanes can filter Bayer and YUV without storing such rows
  bool planar_sums;  // and adds rows up so; then x has the sums of grey
  std::int32_t channels;   // that count in such a row, 1 or 3
  std::int32_t pixel;      // bytes from a pixel of it to the next: 1, 3 or 4
  std::int32_t red_plane;  // 0 for RGB, 2 for BGR
  const AxisPlan* x;
  const AxisPlan* y;
  // A turned box, else null. The crop is then what it samples from, so many rows; of x and y only
  // the sizes count.
  const RotatedPlan* rotated;
  std::int32_t rotated_source_height;
  float scale[3];       // RGB: 1 / (255 std)
  float bias[3];        // RGB: -mean / std
  std::int32_t planes;  // 3 to 5
  bool mean_is_fourth;  // the mean without the maximum
  bool stream;          // bypass the cache; then all rows of `out` are whole cache lines
  float* out;           // first output, or null: then `packing`
  std::ptrdiff_t out_row, out_plane;  // floats
  Packing packing;
  // Scratch, each aligned to 64 bytes:
  void* row;        // one row, vertically filtered, in the path's own format of up to 4 bytes
                    // a channel; readable for the widest tap and kOverread past the end
  float* filtered;  // [2][3][x->padded_size]: two rows, horizontally filtered
  float* finished;  // [5][x->padded_size]: a row to be packed
  std::ptrdiff_t sum_plane;  // planar: numbers of 16 bits from a colour's sums in `row` to the next
  std::uint8_t* edge;        // planar: strips of planar_tap.h that leave the image
  std::uint8_t* gathered;    // planar: what planar_blend.h keeps of rows
  std::uint8_t* copied;      // [2][extent * pixel + kOverread]: rows that must not be read past
  std::uint8_t* converted;   // [widest tap of y, or all rows][converted_stride]
  std::ptrdiff_t converted_stride;
};

using RunBox = void (*)(const BoxJob&);

}  // namespace algan::cpu
