// All paths over images whose memory ends right after the last pixel, so that a sanitizer sees
// every byte read or written outside; all paths must agree with the scalar one.
#include "algan/preprocess.h"

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <vector>

#include "algan/error.h"
#include "check.h"
#include "paths.h"

namespace {

using algan::Box;
using algan::ImageView;
using algan::InputSpec;
using algan::PixelFormat;

struct Image {
  std::unique_ptr<std::uint8_t[]> memory;
  ImageView view;
};

Image make_image(std::int64_t height, std::int64_t width, PixelFormat format, bool flipped) {
  const std::int64_t row = width * (format == PixelFormat::kGrey8 ? 1 : 3);
  const std::int64_t bytes = row * height;
  Image image{std::make_unique<std::uint8_t[]>(static_cast<std::size_t>(bytes)), {}};
  std::uint32_t state = 1;
  for (std::int64_t i = 0; i < bytes; ++i) {
    state = state * 1664525U + 1013904223U;
    image.memory[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(state >> 24);
  }
  const std::uint8_t* data = image.memory.get();
  image.view = flipped ? ImageView{data + (height - 1) * row, height, width, -row, format}
                       : ImageView{data, height, width, row, format};
  return image;
}

void check_sizes(PixelFormat format, bool flipped) {
  for (const std::int64_t height : {1, 2, 13, 65}) {
    for (const std::int64_t width : {1, 2, 5, 11, 22, 43, 130}) {
      const Image image = make_image(height, width, format, flipped);
      const auto w = static_cast<double>(width);
      const auto h = static_cast<double>(height);
      const std::vector<Box> boxes = {
          {0, 0, w, h}, {w - 1, h - 1, w, h}, {w / 3, h / 3, w, h}, {-9, 0.4 * h, w + 9, h}};
      for (const std::int32_t side : {1, 7, 16, 33}) {
        for (const auto filter : {algan::Downscale::kArea, algan::Downscale::kBilinear}) {
          const InputSpec spec{
              side,   side + 1,        side != 16 ? algan::Pooled::kMaxMean : algan::Pooled::kNone,
              filter, {0.5, 0.4, 0.3}, {0.5, 0.6, 0.7}};
          paths::check_agreement(image.view, algan::clip_boxes(image.view, boxes), spec);
        }
      }
    }
  }
}

// Batches so large that they bypass the cache, in sizes with and without whole cache lines.
void check_large_batches() {
  const Image image = make_image(200, 301, PixelFormat::kBgr8, false);
  std::vector<Box> boxes;
  for (int i = 0; i < 5; ++i) boxes.push_back({10.0 * i, 5.5 * i, 200.0 + 20.25 * i, 190.0});
  for (const std::int32_t side : {256, 260}) {
    for (const auto filter : {algan::Downscale::kArea, algan::Downscale::kBilinear}) {
      const InputSpec spec{side / 2, 2 * side,        algan::Pooled::kMaxMean,
                           filter,   {0.5, 0.4, 0.3}, {0.5, 0.6, 0.7}};
      paths::check_agreement(image.view, algan::clip_boxes(image.view, boxes), spec);
    }
  }
  const Image large = make_image(600, 1100, PixelFormat::kRgb8, true);
  const InputSpec shrinks{256,
                          256,
                          algan::Pooled::kMean,
                          algan::Downscale::kBilinear,
                          {0.5, 0.4, 0.3},
                          {0.5, 0.6, 0.7}};
  const std::vector<Box> whole(5, Box{0, 0, 1100, 600});
  paths::check_agreement(large.view, algan::clip_boxes(large.view, whole), shrinks);
}

// Narrow crops are summed byte by byte, wide ones in vectors: the same fixed point, number by
// number.
void check_narrow_equals_wide() {
  const Image image = make_image(77, 50, PixelFormat::kBgr8, false);
  const auto columns = [&](const std::string& path, std::int32_t width) {
    const InputSpec spec{
        10, width, algan::Pooled::kNone, algan::Downscale::kArea, {0.5, 0.4, 0.3}, {0.5, 0.6, 0.7}};
    const std::vector<Box> boxes = {{3, 0.123, 3.0 + width, 76.54}};
    const auto numbers =
        paths::run(path, image.view, boxes, spec, algan::Element::kFloat32, algan::Layout::kNchw);
    std::vector<float> first;
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      if (i % static_cast<std::size_t>(width) < 8) first.push_back(numbers[i]);
    }
    return first;
  };
  for (const std::string& path : algan::available_simd()) {
    CHECK(columns(path, 8) == columns(path, 11) && columns(path, 8) == columns(path, 40));
  }
}

void check_refusals() {
  const Image image = make_image(9, 11, PixelFormat::kBgr8, false);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS(algan::clip_boxes(image.view, {{0, 0, nan, 1}}), algan::InputError);
  CHECK_THROWS(algan::clip_boxes(image.view, {{3, 3, 3, 9}}), algan::InputError);
  CHECK_THROWS(algan::clip_boxes(image.view, {{11, 0, 20, 9}}), algan::InputError);
  CHECK_THROWS(
      algan::check_spec({0, 5, algan::Pooled::kNone, algan::Downscale::kArea, {}, {1, 1, 1}}),
      algan::InputError);
  CHECK_THROWS(
      algan::check_spec({5, 5, algan::Pooled::kNone, algan::Downscale::kArea, {}, {1, 0, 1}}),
      algan::InputError);
  CHECK_THROWS(algan::check_image({nullptr, 0, 5, 0, PixelFormat::kBgr8}), algan::InputError);
  CHECK_THROWS(algan::force_simd("mmx"), algan::InputError);
}

}  // namespace

int main() {
  for (const PixelFormat format : {PixelFormat::kBgr8, PixelFormat::kRgb8, PixelFormat::kGrey8}) {
    for (const bool flipped : {false, true}) check_sizes(format, flipped);
  }
  check_large_batches();
  check_narrow_equals_wide();
  check_refusals();
  paths::print();
  return check::failures();
}
