// Work on many things, shared out among threads that last as long as the call.
#pragma once

#include <algorithm>
#include <cstddef>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace algan::cpu {

// Calls work(begin, end) for ranges that make up [0, count), on the calling thread and at most
// threads - 1 others; where the system gives fewer, on those. Throws what a range threw, after all
// have ended.
template <typename Work>
void share_out(std::size_t count, int threads, const Work& work) {
  const std::size_t ranges = std::min(count, static_cast<std::size_t>(std::max(threads, 1)));
  if (ranges <= 1) return work(0, count);
  std::mutex failing;
  std::exception_ptr failure;
  const auto guarded = [&](std::size_t i) {
    try {
      work(count * i / ranges, count * (i + 1) / ranges);
    } catch (...) {
      const std::lock_guard<std::mutex> alone(failing);
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  others.reserve(ranges - 1);
  std::size_t next = 1;
  try {
    for (; next < ranges; ++next) others.emplace_back(guarded, next);
  } catch (const std::system_error&) {  // no more threads to be had: the rest is done here
  }
  guarded(0);
  for (; next < ranges; ++next) guarded(next);
  for (std::thread& other : others) other.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace algan::cpu
