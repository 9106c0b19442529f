// The real kernels, compiled by nvcc and linked. Where there is a device, they run, and give what
// the CPU's scalar path gives; where there is none, this says so and is skipped.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>
#include <vector>

#include "algan/error.h"
#include "check.h"
#include "cuda/preprocess.h"
#include "cuda/raii.h"
#include "cuda_cases.h"

namespace {

constexpr int kSkipped = 77;

void check_format(algan::cuda::Preprocessor& preprocessor, algan::PixelFormat pixels,
                  const cases::Format& format, int kind) {
  const algan::InputSpec spec{
      34, 40, algan::Pooled::kMaxMean, algan::Downscale::kArea, {0.5, 0.4, 0.3}, {0.5, 0.6, 0.7}};
  const algan::cuda::Stream stream = algan::cuda::make_stream();
  const cases::Image image(50, 131, pixels, kind % 2 == 1, 3, false, 7);
  const cases::Boxes boxes = cases::boxes_for(image.view, kind);
  const std::vector<std::uint8_t> want = cases::scalar(image.view, boxes, spec, format);
  algan::cuda::DeviceBuffer out;
  out.at_least(want.size(), "cudaMalloc");
  algan::cuda::check_device_memory(out.data(), "out");
  const algan::Slots slots{out.data(), format.element, format.layout};
  const algan::ImageView view = preprocessor.upload(image.view, stream.get());
  boxes.turned.empty() ? preprocessor.run(view, boxes.upright, spec, slots, stream.get())
                       : preprocessor.run(view, boxes.turned, spec, slots, stream.get());
  std::vector<std::uint8_t> got(want.size());
  algan::cuda::check(
      cudaMemcpyAsync(got.data(), out.data(), got.size(), cudaMemcpyDeviceToHost, stream.get()),
      "cudaMemcpyAsync");
  algan::cuda::check(cudaStreamSynchronize(stream.get()), "cudaStreamSynchronize");
  CHECK(got == want);
}

}  // namespace

int main() {
  int devices = 0;
  const cudaError_t code = cudaGetDeviceCount(&devices);
  if (code != cudaSuccess || devices == 0) {
    CHECK_THROWS(algan::cuda::Preprocessor(), algan::DeviceError);
    std::printf("no CUDA device: skipped (%s)\n", cudaGetErrorString(code));
    return check::failures() != 0 ? check::failures() : kSkipped;
  }
  algan::cuda::Preprocessor preprocessor;
  for (const algan::PixelFormat pixels : cases::kFormats) {
    for (int kind = 0; kind < 4; ++kind) {
      for (int i = 0; i < 6; ++i) {
        check_format(preprocessor, pixels,
                     {static_cast<algan::Element>(i % 3), static_cast<algan::Layout>(i / 3)}, kind);
      }
    }
  }
  return check::failures();
}
