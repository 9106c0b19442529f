// All paths over images whose memory ends right after the last pixel, so that a sanitizer sees
// every byte read or written outside; all paths must agree with the scalar one.
#include "algan/preprocess.h"

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <vector>

#include "algan/error.h"
#include "check.h"

namespace {

using algan::Box;
using algan::ImageView;
using algan::InputSpec;
using algan::PixelFormat;

// 16-bit weights and sums of the SIMD paths; see tests/test_preprocess.py.
constexpr float kTolerance = 1.5e-4F;

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

std::vector<float> run(const char* path, const ImageView& view, const std::vector<Box>& boxes,
                       const InputSpec& spec) {
  algan::force_simd(path);
  std::vector<float> out(boxes.size() * spec.slot_elements());
  algan::preprocess(view, algan::clip_boxes(view, boxes), spec, {out.data()});
  algan::force_simd("");
  return out;
}

void check_paths_agree(const ImageView& view, const std::vector<Box>& boxes,
                       const InputSpec& spec) {
  const std::vector<float> want = run("scalar", view, boxes, spec);
  for (const std::string& path : algan::available_simd()) {
    const std::vector<float> got = run(path.c_str(), view, boxes, spec);
    float worst = 0.0F;
    for (std::size_t i = 0; i < want.size(); ++i) {
      worst = std::fmax(worst, std::fabs(got[i] - want[i]));
    }
    CHECK(worst <= kTolerance);
  }
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
          check_paths_agree(image.view, boxes, spec);
        }
      }
    }
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
  check_refusals();
  return check::failures();
}
