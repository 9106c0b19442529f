// Images of every format, and what preprocess() makes of them on the CPU's scalar path.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "algan/preprocess.h"

namespace cases {

using algan::ImageView;
using algan::InputSpec;
using algan::PixelFormat;

constexpr PixelFormat kFormats[] = {
    PixelFormat::kBgr8,       PixelFormat::kRgb8,       PixelFormat::kBgra8,
    PixelFormat::kRgba8,      PixelFormat::kGrey8,      PixelFormat::kGrey16,
    PixelFormat::kBayerRggb8, PixelFormat::kBayerBggr8, PixelFormat::kBayerGrbg8,
    PixelFormat::kBayerGbrg8, PixelFormat::kNv12,       PixelFormat::kNv21,
    PixelFormat::kI420,       PixelFormat::kYuyv,       PixelFormat::kUyvy};

// Both kinds; one of them is used.
struct Boxes {
  std::vector<algan::Box> upright;
  std::vector<algan::RotatedBox> turned;

  std::size_t size() const { return upright.size() + turned.size(); }
};

struct Noise {
  std::uint32_t state;
  std::uint8_t next() {
    state = state * 1664525U + 1013904223U;
    return static_cast<std::uint8_t>(state >> 24);
  }
};

// An image and its memory, which ends right after the last pixel of each plane.
struct Image {
  ImageView view{};
  std::vector<std::uint8_t> first, chroma, chroma_v, mask;

  // YUV gets even sides. `spare` bytes lie between rows; a flipped image is stored bottom up.
  Image(std::int64_t height, std::int64_t width, PixelFormat format, bool masked, int spare,
        bool flipped, std::uint32_t seed) {
    const auto yuv = format >= PixelFormat::kNv12;
    view.format = format;
    view.height_px = yuv ? (height + 1) / 2 * 2 : height;
    view.width_px = yuv ? (width + 1) / 2 * 2 : width;
    view.yuv = static_cast<algan::YuvRange>(seed % 4);
    view.white_level = 4095;
    view.masked = 77;
    noise_.state = seed;
    const std::int64_t h = view.height_px, w = view.width_px;
    view.row_stride = plane(first, h, w * view.pixel_bytes(), spare);
    view.data = first.data();
    if (flipped) {
      view.data += (h - 1) * view.row_stride;
      view.row_stride = -view.row_stride;
    }
    if (format == PixelFormat::kNv12 || format == PixelFormat::kNv21) {
      view.chroma_stride = plane(chroma, h / 2, w, spare);
      view.chroma = chroma.data();
    }
    if (format == PixelFormat::kI420) {
      view.chroma_stride = plane(chroma, h / 2, w / 2, spare);
      plane(chroma_v, h / 2, w / 2, spare);
      view.chroma = chroma.data();
      view.chroma_v = chroma_v.data();
    }
    if (masked) {
      view.mask_stride = plane(mask, h, w, spare);
      for (std::uint8_t& byte : mask) byte = byte % 3;
      view.mask = mask.data();
    }
  }
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;

  void wipe() {
    for (auto* bytes : {&first, &chroma, &chroma_v, &mask}) bytes->assign(bytes->size(), 0);
  }

 private:
  std::ptrdiff_t plane(std::vector<std::uint8_t>& bytes, std::int64_t rows, std::int64_t row_bytes,
                       int spare) {
    const std::int64_t stride = row_bytes + spare;
    bytes.resize(static_cast<std::size_t>(stride * (rows - 1) + row_bytes));
    for (std::uint8_t& byte : bytes) byte = noise_.next();
    return static_cast<std::ptrdiff_t>(stride);
  }

  Noise noise_{1};
};

struct Format {
  algan::Element element = algan::Element::kFloat32;
  algan::Layout layout = algan::Layout::kNchw;
};

inline std::size_t bytes_of(const InputSpec& spec, const Format& format, std::size_t boxes) {
  const algan::Slots slots{nullptr, format.element, format.layout};
  return boxes * spec.slot_elements() * slots.element_bytes();
}

inline std::vector<std::uint8_t> scalar(const ImageView& image, const Boxes& boxes,
                                        const InputSpec& spec, const Format& format) {
  std::vector<std::uint8_t> out(bytes_of(spec, format, boxes.size()), 0xEE);
  const algan::Slots slots{out.data(), format.element, format.layout};
  algan::force_simd("scalar");
  boxes.turned.empty() ? algan::preprocess(image, boxes.upright, spec, slots)
                       : algan::preprocess(image, boxes.turned, spec, slots);
  algan::force_simd("");
  return out;
}

// Four ways to lay boxes over an image: all of it, pieces of it, pieces of pixels, and turned.
inline Boxes boxes_for(const ImageView& view, int kind) {
  const auto w = static_cast<double>(view.width_px);
  const auto h = static_cast<double>(view.height_px);
  Boxes boxes;
  if (kind == 0) {
    boxes.upright = {{0, 0, w, h}};
  } else if (kind == 1) {
    boxes.upright = {{w / 3, h / 3, w, h},
                     {-9, 0.4 * h, w + 9, h},
                     {w - 1, h - 1, w, h},
                     {0.3, 0.6, 0.3 + w / 1.7, 0.6 + h / 1.3}};
  } else if (kind == 2) {
    for (int i = 0; i < 17; ++i) {  // more than travel with the launch
      const double edge = 0.04 * i;
      boxes.upright.push_back({edge, edge / 2, edge + 0.1 + 0.05 * i * w, edge + 0.2 * h});
    }
  } else {
    boxes.turned = {
        {w / 2, h / 2, w, h / 2, 30}, {0.1, 0.2, 3 * w, 2, -75.5}, {w / 3, h / 3, 5, 5, 0}};
  }
  boxes.upright = algan::clip_boxes(view, boxes.upright);
  boxes.turned = algan::check_rotated(view, boxes.turned);
  return boxes;
}

}  // namespace cases
