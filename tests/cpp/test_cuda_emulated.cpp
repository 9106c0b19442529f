// The CUDA kernels, run on the processor over whole grids, against the CPU's scalar path: equal bit
// by bit. See cuda_emulation.h.
#include <cstring>
#include <initializer_list>
#include <vector>

#include "algan/error.h"
#include "check.h"
#include "cuda/preprocess.h"
#include "cuda/raii.h"
#include "cuda_cases.h"

namespace {

using algan::cuda::Preprocessor;
using cases::Boxes;
using cases::Format;
using cases::Image;
using Bytes = std::vector<std::uint8_t>;

const algan::InputSpec kSpec{
    20, 36, algan::Pooled::kMaxMean, algan::Downscale::kArea, {0.5, 0.4, 0.3}, {0.5, 0.6, 0.7}};

void enqueue(Preprocessor& preprocessor, const algan::ImageView& image, const Boxes& boxes,
             const algan::InputSpec& spec, const Format& format, std::uint8_t* out,
             cudaStream_t stream) {
  const algan::Slots slots{out, format.element, format.layout};
  boxes.turned.empty() ? preprocessor.run(image, boxes.upright, spec, slots, stream)
                       : preprocessor.run(image, boxes.turned, spec, slots, stream);
}

void check_same(Preprocessor& preprocessor, const Image& image, const Boxes& boxes,
                const algan::InputSpec& spec, const Format& format, bool uploaded) {
  const Bytes want = cases::scalar(image.view, boxes, spec, format);
  Bytes got(want.size(), 0x11);
  const algan::ImageView view =
      uploaded ? preprocessor.upload(image.view, nullptr) : image.view;  // one memory, here
  enqueue(preprocessor, view, boxes, spec, format, got.data(), nullptr);
  cudaStreamSynchronize(nullptr);
  const bool same = got == want;
  CHECK(same);
  if (same) return;
  std::fprintf(stderr, "  format %d, %d x %d to %d x %d, %d boxes, fit %d, filter %d, element %d\n",
               static_cast<int>(image.view.format), static_cast<int>(image.view.width_px),
               static_cast<int>(image.view.height_px), spec.width_px, spec.height_px,
               static_cast<int>(boxes.size()), static_cast<int>(spec.fit),
               static_cast<int>(spec.downscale), static_cast<int>(format.element));
}

// Cycles of different lengths through what does not depend on each other.
struct Variety {
  int i = 0;

  algan::InputSpec spec(std::int32_t height, std::int32_t width) {
    algan::InputSpec spec = kSpec;
    spec.height_px = height;
    spec.width_px = width;
    spec.pooled = static_cast<algan::Pooled>(i % 4);
    spec.fit = static_cast<algan::Fit>(i / 2 % 2);
    spec.pad_level = 101.5;
    return spec;
  }
  Format format() const {
    return Format{static_cast<algan::Element>(i % 3), static_cast<algan::Layout>(i / 3 % 2)};
  }
  bool uploaded() const { return i % 5 < 3; }
};

void check_formats() {
  constexpr std::int64_t kSizes[][2] = {{1, 1}, {7, 13}, {50, 131}};
  constexpr std::int32_t kOutputs[][2] = {{1, 1}, {9, 7}, {34, 40}};
  Preprocessor preprocessor;
  Variety variety;
  for (const algan::PixelFormat pixels : cases::kFormats) {
    for (const auto& size : kSizes) {
      for (const bool masked : {false, true}) {
        const Image image(size[0], size[1], pixels, masked, variety.i % 4, variety.i % 7 > 4,
                          static_cast<std::uint32_t>(variety.i + 1));
        for (int kind = 0; kind < 4; ++kind) {
          const Boxes boxes = cases::boxes_for(image.view, kind);
          for (const auto& output : kOutputs) {
            for (const auto filter : {algan::Downscale::kArea, algan::Downscale::kBilinear}) {
              ++variety.i;
              algan::InputSpec spec = variety.spec(output[0], output[1]);
              spec.downscale = filter;
              const Format format = variety.format();
              check_same(preprocessor, image, boxes, spec, format, variety.uploaded());
            }
          }
        }
      }
    }
  }
}

void check_outputs() {
  Preprocessor preprocessor;
  const Image image(45, 70, algan::PixelFormat::kBgr8, false, 0, false, 9);
  for (int kind = 0; kind < 4; ++kind) {
    const Boxes boxes = cases::boxes_for(image.view, kind);
    for (int i = 0; i < 48; ++i) {
      algan::InputSpec spec = kSpec;
      spec.pooled = static_cast<algan::Pooled>(i % 4);
      spec.fit = static_cast<algan::Fit>(i / 4 % 2);
      const Format format{static_cast<algan::Element>(i / 8 % 3),
                          static_cast<algan::Layout>(i / 24)};
      check_same(preprocessor, image, boxes, spec, format, false);
    }
  }
}

// Large enough for tall tiles, and for crops that shrink by less than 2 on both axes.
void check_tall_tiles() {
  Preprocessor preprocessor;
  const Image image(33, 47, algan::PixelFormat::kRgb8, false, 1, false, 5);
  Boxes boxes;
  for (int i = 0; i < 700; ++i) {
    boxes.upright.push_back({0.01 * i, 0.005 * i, 40 + 0.01 * i, 30 + 0.004 * i});
  }
  algan::InputSpec spec = kSpec;
  spec.height_px = 26;
  spec.width_px = 97;
  check_same(preprocessor, image, boxes, spec, Format{}, true);
  for (const std::int32_t width : {20, 23, 24, 30, 39, 40}) {
    spec.height_px = 20;
    spec.width_px = width;
    for (std::size_t k = 0; k < 12; ++k) {
      Boxes few;
      few.upright = {{0, 0, 40, 30}, boxes.upright[k * 9]};
      check_same(preprocessor, image, few, spec, Format{}, true);
    }
  }
}

// The host writes over its image at once, other sizes come between, two streams take turns, and
// nobody waits: the device gets to work only at the end.
void check_lifetimes() {
  auto preprocessor = std::make_unique<Preprocessor>();
  algan::cuda::Stream streams[] = {algan::cuda::make_stream(), algan::cuda::make_stream()};
  constexpr int kCalls = 12;
  std::vector<Bytes> want, got;
  for (int i = 0; i < kCalls; ++i) {
    const std::int64_t side = i == 7 ? 90 : 20 + i;
    Image image(side, side + 3, cases::kFormats[i], i % 2 == 0, 0, false,
                static_cast<std::uint32_t>(i + 40));
    const Boxes boxes = cases::boxes_for(image.view, i % 4);
    want.push_back(cases::scalar(image.view, boxes, kSpec, Format{}));
    got.emplace_back(want.back().size());
    cudaStream_t stream = streams[i / 2 % 2].get();
    const algan::ImageView view = preprocessor->upload(image.view, stream);
    image.wipe();
    enqueue(*preprocessor, view, boxes, kSpec, Format{}, got.back().data(), stream);
    if (i == 2) CHECK(emulation::runtime().waits == 1);  // because memory grew
  }
  preprocessor.reset();  // waits for what is still to be done with its memory
  for (const algan::cuda::Stream& stream : streams) cudaStreamSynchronize(stream.get());
  CHECK(got == want);
}

void check_reserved_memory_never_waits() {
  Preprocessor preprocessor;
  preprocessor.reserve(30 * 40 * 3, 17);
  const int before = emulation::runtime().waits;
  Bytes out(cases::bytes_of(kSpec, Format{}, 17));
  for (int i = 0; i < 3; ++i) {
    const Image image(30, 40, algan::PixelFormat::kBgr8, false, 0, false, 1);
    const algan::ImageView view = preprocessor.upload(image.view, nullptr);
    enqueue(preprocessor, view, cases::boxes_for(image.view, 2), kSpec, Format{}, out.data(),
            nullptr);
  }
  CHECK(emulation::runtime().waits == before);
  cudaStreamSynchronize(nullptr);
}

void check_one_launch() {
  Preprocessor preprocessor;
  const Image image(30, 40, algan::PixelFormat::kNv12, false, 0, false, 1);
  for (const int kind : {1, 2, 3}) {
    const Boxes boxes = cases::boxes_for(image.view, kind);
    const int before = emulation::runtime().launches;
    check_same(preprocessor, image, boxes, kSpec, Format{}, true);
    CHECK(emulation::runtime().launches == before + 1);
  }
}

void check_refusals() {
  Preprocessor preprocessor;
  Bytes host(64);
  CHECK_THROWS(algan::cuda::check_device_memory(host.data(), "out"), algan::InputError);
  algan::cuda::DeviceBuffer device;
  device.at_least(64, "cudaMalloc");
  algan::cuda::check_device_memory(static_cast<std::uint8_t*>(device.data()) + 63, "out");
  CHECK_THROWS(device.at_least(std::size_t{1} << 41, "cudaMalloc"), algan::DeviceError);
  const Image image(2, 2, algan::PixelFormat::kGrey8, false, 0, false, 1);
  const std::vector<algan::Box> many(65536, algan::Box{0, 0, 1, 1});
  const algan::Slots slots{host.data()};
  CHECK_THROWS(preprocessor.run(image.view, many, kSpec, slots, nullptr), algan::InputError);
  const int before = emulation::runtime().launches;
  preprocessor.run(image.view, std::vector<algan::Box>{}, kSpec, slots, nullptr);
  CHECK(emulation::runtime().launches == before);
}

}  // namespace

int main() {
  check_lifetimes();
  check_formats();
  check_outputs();
  check_tall_tiles();
  check_reserved_memory_never_waits();
  check_one_launch();
  check_refusals();
  return check::failures();
}
