// Threads of different sizes write into neighbouring slots of one buffer; ThreadSanitizer watches.
#include <cstdint>
#include <thread>
#include <vector>

#include "algan/preprocess.h"
#include "check.h"

int main() {
  constexpr std::size_t kThreads = 8;
  constexpr int kRounds = 20;
  const algan::InputSpec spec{
      33, 48, algan::Pooled::kMaxMean, algan::Downscale::kArea, {0.5, 0.5, 0.5}, {0.5, 0.5, 0.5}};
  std::vector<std::uint8_t> pixels(90 * 120 * 3);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i * 7);
  const algan::ImageView view{pixels.data(), 90, 120, 360, algan::PixelFormat::kBgr8};
  const auto box = [](std::size_t i) {
    const auto edge = static_cast<double>(i);
    return std::vector<algan::Box>{{edge, edge, 50.0 + 8.0 * edge, 40.0 + 5.5 * edge}};
  };

  const std::size_t slot = spec.slot_elements();
  std::vector<float> want(kThreads * slot);
  for (std::size_t i = 0; i < kThreads; ++i) {
    algan::preprocess(view, algan::clip_boxes(view, box(i)), spec, {want.data() + i * slot});
  }
  algan::force_simd("");  // so that the threads race for the first choice of a path
  std::vector<float> got(want.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < kRounds; ++round) {
        algan::preprocess(view, algan::clip_boxes(view, box(i)), spec, {got.data() + i * slot});
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(got == want);

  std::vector<algan::Box> boxes;
  for (std::size_t i = 0; i < kThreads; ++i) boxes.push_back(box(i)[0]);
  std::vector<float> shared(want.size());
  algan::preprocess(view, algan::clip_boxes(view, boxes), spec, {shared.data()}, 3);
  CHECK(shared == want);
  return check::failures();
}
