// One output pixel of a box, from its taps to the stored number: what a CUDA thread does.
//
// The operations and their order are those of the CPU's scalar path (csrc/cpu/ops_scalar.h and
// box_body.h), so that the results are equal bit by bit: no fused multiply-adds, rows added up
// before columns where an axis averages, columns blended before rows where none does.
#pragma once

#include "algan/color_math.h"
#include "algan/geometry.h"

namespace algan {

// One axis of an upright crop; positions are relative to the crop's first source pixel.
struct AxisSampling {
  double begin;
  double step;           // source pixels per output
  std::int32_t extent;   // source pixels of the crop
  std::int32_t shrinks;  // area taps, else bilinear
};

ALGAN_HD Tap tap_of(const AxisSampling& axis, std::int32_t i) {
  return axis.shrinks != 0 ? area_tap(axis.begin, axis.step, i, axis.extent)
                           : bilinear_tap(axis.begin, axis.step, i, axis.extent);
}

// How one box is sampled, and which part of its slot it fills. Made by the host, see
// csrc/cuda/box_sampling.h.
struct BoxSampling {
  std::int64_t top, left;  // first source pixel
  AxisSampling y, x;       // of a turned box only the extents count
  RotatedPlan rotated;     // of a turned box only
  Region region;
  std::int32_t turned;
  std::int32_t blends;  // neither axis has a tap of more than two pixels
};

// What becomes of a sample, for all boxes of a call.
struct Normalisation {
  float scale[3];               // RGB: 1 / (255 std)
  float bias[3];                // RGB: -mean / std
  float pad_level;              // beside a letterboxed crop
  std::int32_t planes;          // 3 to 5
  std::int32_t mean_is_fourth;  // the mean without the maximum
};

inline Normalisation normalisation_of(const InputSpec& spec, Element element) {
  Normalisation n{};
  for (std::size_t c = 0; c < 3; ++c) {
    const bool raw = element == Element::kUint8;  // the network normalises
    n.scale[c] = raw ? 1.0F : static_cast<float>(1.0 / (255.0 * spec.std[c]));
    n.bias[c] = raw ? 0.0F : static_cast<float>(-spec.mean[c] / spec.std[c]);
  }
  n.pad_level = static_cast<float>(spec.pad_level);
  n.planes = static_cast<std::int32_t>(spec.channels());
  n.mean_is_fourth = spec.pooled == Pooled::kMean ? 1 : 0;
  return n;
}

// The pixels of a crop, as they lie there. `load` gives all channels of a pixel, RGB or one grey,
// and the call operator one of them, as rotated_pixel() wants it.
struct ColourPixels {
  static constexpr int kChannels = 3;
  const std::uint8_t* source;
  std::ptrdiff_t row_stride;
  std::int32_t pixel;  // bytes from a pixel to the next, 3 or 4
  std::int32_t red;    // place of red, 0 or 2

  ALGAN_HD static ColourPixels of(const ImageView& image, std::int64_t top, std::int64_t left) {
    const std::int32_t pixel = image.pixel_bytes();
    return ColourPixels{image.data + top * image.row_stride + left * pixel, image.row_stride, pixel,
                        image.red_first() ? 0 : 2};
  }
  ALGAN_HD float operator()(std::int32_t y, std::int32_t x, int c) const {
    const int place = red == 0 ? c : 2 - c;
    return static_cast<float>(
        source[row_stride * y + static_cast<std::ptrdiff_t>(pixel) * x + place]);
  }
  ALGAN_HD void load(std::int32_t y, std::int32_t x, float* value) const {
    for (int c = 0; c < kChannels; ++c) value[c] = (*this)(y, x, c);
  }
};

struct GreyPixels {
  static constexpr int kChannels = 1;
  const std::uint8_t* source;
  std::ptrdiff_t row_stride;

  ALGAN_HD static GreyPixels of(const ImageView& image, std::int64_t top, std::int64_t left) {
    return GreyPixels{image.data + top * image.row_stride + left, image.row_stride};
  }
  ALGAN_HD float operator()(std::int32_t y, std::int32_t x, int) const {
    return static_cast<float>(source[row_stride * y + x]);
  }
  ALGAN_HD void load(std::int32_t y, std::int32_t x, float* value) const {
    value[0] = (*this)(y, x, 0);
  }
};

// Channel of a sample that stands for red, green or blue.
template <typename Pixels>
ALGAN_HD float of_colour(const float* sample, int c) {
  return sample[Pixels::kChannels == 1 ? 0 : c];
}

// One source row, blended horizontally.
template <typename Pixels>
ALGAN_HD void blend_columns(const Pixels& pixels, std::int32_t y, const Tap& column,
                            float* blended) {
  float left[Pixels::kChannels], right[Pixels::kChannels];
  pixels.load(y, column.start, left);
  pixels.load(y, column.start + column.count - 1, right);
  const float left_weight = column.unit * column.first;
  const float right_weight = column.unit * column.last;
  for (int c = 0; c < Pixels::kChannels; ++c) {
    blended[c] = left_weight * left[c] + right_weight * right[c];
  }
}

// Neither axis has more than two pixels a tap.
template <typename Pixels>
ALGAN_HD void blend_pixel(const Pixels& pixels, const Tap& row, const Tap& column,
                          const Normalisation& n, float* value) {
  float upper[Pixels::kChannels], lower[Pixels::kChannels] = {};
  blend_columns(pixels, row.start, column, upper);
  if (row.count == 2) blend_columns(pixels, row.start + 1, column, lower);
  for (int c = 0; c < 3; ++c) {
    const float unit = n.scale[c] * row.unit;
    value[c] = normalise(of_colour<Pixels>(upper, c), unit * row.first, n.bias[c]);
    if (row.count == 2) value[c] += of_colour<Pixels>(lower, c) * (unit * row.last);
  }
}

// One source column under a vertical tap, added up.
template <typename Pixels>
ALGAN_HD void sum_rows(const Pixels& pixels, std::int32_t x, const Tap& row, float* sum) {
  float first[Pixels::kChannels], last[Pixels::kChannels];
  pixels.load(row.start, x, first);
  pixels.load(row.start + row.count - 1, x, last);
  for (int c = 0; c < Pixels::kChannels; ++c) sum[c] = row.first * first[c] + row.last * last[c];
  for (std::int32_t k = 1; k < row.count - 1; ++k) {
    float middle[Pixels::kChannels];
    pixels.load(row.start + k, x, middle);
    for (int c = 0; c < Pixels::kChannels; ++c) sum[c] += middle[c];
  }
}

// At least one axis averages.
template <typename Pixels>
ALGAN_HD void sum_pixel(const Pixels& pixels, const Tap& row, const Tap& column,
                        const Normalisation& n, float* value) {
  float sum[Pixels::kChannels], last[Pixels::kChannels];
  sum_rows(pixels, column.start, row, sum);
  sum_rows(pixels, column.start + column.count - 1, row, last);
  for (int c = 0; c < Pixels::kChannels; ++c)
    sum[c] = column.first * sum[c] + column.last * last[c];
  for (std::int32_t k = 1; k < column.count - 1; ++k) {
    float middle[Pixels::kChannels];
    sum_rows(pixels, column.start + k, row, middle);
    for (int c = 0; c < Pixels::kChannels; ++c) sum[c] += middle[c];
  }
  for (int c = 0; c < 3; ++c) {
    value[c] = normalise(of_colour<Pixels>(sum, c) * column.unit, n.scale[c] * row.unit, n.bias[c]);
  }
}

// Output (y, x) of a turned box's region.
template <typename Pixels>
ALGAN_HD void turned_pixel(const Pixels& pixels, const BoxSampling& box, std::int32_t y,
                           std::int32_t x, const Normalisation& n, float* value) {
  float mean[Pixels::kChannels];
  rotated_pixel<Pixels::kChannels>(box.rotated, y, x, box.y.extent, box.x.extent, pixels, mean);
  for (int c = 0; c < 3; ++c) {
    value[c] = normalise(of_colour<Pixels>(mean, c), n.scale[c], n.bias[c]);
  }
}

ALGAN_HD void pad_pixel(const Normalisation& n, float* value) {
  for (int c = 0; c < 3; ++c) value[c] = normalise(n.pad_level, n.scale[c], n.bias[c]);
}

// Appends maximum and mean, as asked for; `value` has room for five.
ALGAN_HD void append_pooled(const Normalisation& n, float* value) {
  const float mean = mean3(value[0], value[1], value[2]);
  value[3] = n.mean_is_fourth != 0 ? mean : max3(value[0], value[1], value[2]);
  value[4] = mean;
}

// The slots that all boxes of a call are written to.
struct SlotPlan {
  void* data;
  Element element;
  Layout layout;
  std::int32_t height, width, planes;
};

ALGAN_HD void store_pixel(const SlotPlan& out, std::int64_t slot, std::int32_t y, std::int32_t x,
                          const float* value) {
  const std::int64_t plane = static_cast<std::int64_t>(out.height) * out.width;
  const std::int64_t pixel = static_cast<std::int64_t>(y) * out.width + x;
  const bool planar = out.layout == Layout::kNchw;
  const std::int64_t first = slot * plane * out.planes + (planar ? pixel : pixel * out.planes);
  const std::int64_t step = planar ? plane : 1;
  for (std::int32_t c = 0; c < 5; ++c) {  // a constant keeps `value` in registers
    if (c >= out.planes) break;
    const std::int64_t at = first + c * step;
    if (out.element == Element::kFloat32) {
      static_cast<float*>(out.data)[at] = value[c];
    } else if (out.element == Element::kFloat16) {
      static_cast<std::uint16_t*>(out.data)[at] = half_bits(value[c]);
    } else {
      static_cast<std::uint8_t*>(out.data)[at] = round_byte(value[c]);
    }
  }
}

}  // namespace algan
