// Every pixel format, with and without a mask, on all paths: the bytes it becomes are those of
// color_math.h, and all paths agree with the scalar one however crops are placed and packed. Each
// plane is memory of its own that ends right after its last pixel, for a sanitizer to watch.
#include <cstdint>
#include <memory>
#include <vector>

#include "algan/color_math.h"
#include "algan/preprocess.h"
#include "check.h"
#include "paths.h"

namespace {

using algan::Downscale;
using algan::Element;
using algan::Fit;
using algan::ImageView;
using algan::InputSpec;
using algan::Layout;
using algan::PixelFormat;
using algan::Pooled;

using Plane = std::unique_ptr<std::uint8_t[]>;

Plane random_plane(std::int64_t bytes, std::uint32_t seed) {
  auto plane = std::make_unique<std::uint8_t[]>(static_cast<std::size_t>(bytes));
  std::uint32_t state = seed;
  for (std::int64_t i = 0; i < bytes; ++i) {
    state = state * 1664525U + 1013904223U;
    plane[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(state >> 24);
  }
  return plane;
}

struct Image {
  Plane first, chroma, chroma_v, mask;
  ImageView view;
};

bool half_planes(PixelFormat format) {
  return format == PixelFormat::kNv12 || format == PixelFormat::kNv21 ||
         format == PixelFormat::kI420;
}

Image make_image(PixelFormat format, std::int64_t height, std::int64_t width, bool masked) {
  Image image{};
  ImageView& view = image.view;
  view.height_px = height;
  view.width_px = width;
  view.format = format;
  view.yuv = height % 4 == 0 ? algan::YuvRange::kBt709Full : algan::YuvRange::kBt601Limited;
  view.white_level = masked ? 4095 : 65535;
  view.row_stride = width * view.pixel_bytes();
  image.first = random_plane(height * view.row_stride, 1);
  view.data = image.first.get();
  if (half_planes(format)) {
    view.chroma_stride = format == PixelFormat::kI420 ? width / 2 : width;
    image.chroma = random_plane(height / 2 * view.chroma_stride, 2);
    image.chroma_v = random_plane(height / 2 * view.chroma_stride, 3);
    view.chroma = image.chroma.get();
    view.chroma_v = format == PixelFormat::kI420 ? image.chroma_v.get() : nullptr;
  }
  if (masked) {
    image.mask = random_plane(height * width, 4);
    for (std::int64_t i = 0; i < height * width; ++i) image.mask[static_cast<std::size_t>(i)] &= 3;
    view.mask = image.mask.get();
    view.mask_stride = width;
    view.masked = 114;
  }
  algan::check_image(view);
  return image;
}

// A slot as large as the image holds the image's own bytes.
void check_bytes(const ImageView& view) {
  const InputSpec spec{static_cast<std::int32_t>(view.height_px),
                       static_cast<std::int32_t>(view.width_px),
                       Pooled::kNone,
                       Downscale::kArea,
                       {0.5, 0.5, 0.5},
                       {0.5, 0.5, 0.5}};
  const std::vector<algan::Box> whole = {
      {0, 0, static_cast<double>(view.width_px), static_cast<double>(view.height_px)}};
  for (const std::string& path : algan::available_simd()) {
    const std::vector<float> got =
        paths::run(path, view, whole, spec, Element::kUint8, Layout::kNhwc);
    bool same = true;
    std::size_t i = 0;
    for (std::int64_t y = 0; y < view.height_px; ++y) {
      for (std::int64_t x = 0; x < view.width_px; ++x) {
        std::uint8_t rgb[3];
        algan::load_rgb(view, y, x, rgb);
        for (const std::uint8_t value : rgb) same = same && got[i++] == static_cast<float>(value);
      }
    }
    CHECK(same);
    if (!same) std::fprintf(stderr, "  on path %s\n", path.c_str());
  }
}

struct Case {
  std::int32_t height, width;
  Pooled pooled;
  Downscale downscale;
  Fit fit;
  Element element;
  Layout layout;
};

constexpr Case kCases[] = {
    {33, 48, Pooled::kMaxMean, Downscale::kArea, Fit::kStretch, Element::kFloat32, Layout::kNchw},
    {16, 16, Pooled::kNone, Downscale::kBilinear, Fit::kStretch, Element::kFloat16, Layout::kNchw},
    {24, 40, Pooled::kNone, Downscale::kArea, Fit::kLetterbox, Element::kUint8, Layout::kNhwc},
    {40, 21, Pooled::kMean, Downscale::kBilinear, Fit::kLetterbox, Element::kFloat32,
     Layout::kNhwc},
    {7, 9, Pooled::kMax, Downscale::kArea, Fit::kLetterbox, Element::kFloat16, Layout::kNhwc},
    {11, 13, Pooled::kNone, Downscale::kBilinear, Fit::kStretch, Element::kUint8, Layout::kNchw},
};

void check_cases(const ImageView& view) {
  const auto w = static_cast<double>(view.width_px);
  const auto h = static_cast<double>(view.height_px);
  const std::vector<algan::Box> boxes = {
      {0, 0, w, h}, {w / 3, h / 3, w, h}, {0.5, 0, 0.8 * w, 0.7 * h}, {w - 1, h - 1, w, h}};
  const std::vector<algan::RotatedBox> rotated = {{w / 2, h / 2, w, h, 30.0},
                                                  {w / 4, h / 3, w / 2, h / 4, -101.5}};
  for (const Case& c : kCases) {
    const InputSpec spec{c.height,        c.width, c.pooled, c.downscale, {0.5, 0.4, 0.3},
                         {0.5, 0.6, 0.7}, c.fit,   114.0,    0.0};
    paths::check_agreement(view, algan::clip_boxes(view, boxes), spec, c.element, c.layout);
    paths::check_agreement(view, algan::check_rotated(view, rotated), spec, c.element, c.layout);
  }
}

void check_format(PixelFormat format) {
  constexpr std::int64_t kSizes[][2] = {{2, 2}, {6, 10}, {4, 66}, {36, 64}, {22, 130}};
  for (const auto& size : kSizes) {
    for (const bool masked : {false, true}) {
      // Where nothing is shared between pixels or pairs, sizes need not be even.
      const bool yuv = half_planes(format) || format >= PixelFormat::kYuyv;
      const std::int64_t odd = masked && !yuv ? 1 : 0;
      const Image image = make_image(format, size[0] + odd, size[1] + odd, masked);
      check_bytes(image.view);
      check_cases(image.view);
    }
  }
}

}  // namespace

int main() {
  for (auto i = static_cast<int>(PixelFormat::kBgr8); i <= static_cast<int>(PixelFormat::kUyvy);
       ++i) {
    check_format(static_cast<PixelFormat>(i));
  }
  paths::print();
  return check::failures();
}
