// Host data on its way to device memory, without waiting for it.
//
// What is sent lies in pinned memory until the stream has copied it, so that pinned memory is
// taken in turn from kDepth buffers, each guarded by an event. The host waits in two cases only:
// the stream is kDepth copies behind, or memory has to grow.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "cuda/raii.h"

namespace algan::cuda {

class Staging {
 public:
  Staging() = default;
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  // Waits: memory must not go while the device uses it.
  ~Staging() {
    if (passed_.get() != nullptr) (void)cudaEventSynchronize(passed_.get());
  }

  // Pinned memory to be filled before send().
  std::uint8_t* claim(std::size_t bytes) {
    Entry& entry = entries_[next_];
    if (entry.copied.get() != nullptr) {
      check(cudaEventSynchronize(entry.copied.get()), "cudaEventSynchronize");
    } else {
      entry.copied = make_event();
    }
    entry.pinned.at_least(bytes, "cudaMallocHost");
    return static_cast<std::uint8_t*>(entry.pinned.data());
  }

  // Enqueues the copy of what claim() gave; returns where it will be.
  const std::uint8_t* send(std::size_t bytes, cudaStream_t stream) {
    grow_device(bytes);
    if (passed_.get() != nullptr) {  // the last user may be on another stream
      check(cudaStreamWaitEvent(stream, passed_.get(), 0), "cudaStreamWaitEvent");
    }
    Entry& entry = entries_[next_];
    check(
        cudaMemcpyAsync(device_.data(), entry.pinned.data(), bytes, cudaMemcpyHostToDevice, stream),
        "cudaMemcpyAsync");
    check(cudaEventRecord(entry.copied.get(), stream), "cudaEventRecord");
    next_ = (next_ + 1) % kDepth;
    used(stream);
    return static_cast<const std::uint8_t*>(device_.data());
  }

  // To be called after each launch that reads what was sent.
  void used(cudaStream_t stream) {
    if (passed_.get() == nullptr) passed_ = make_event();
    check(cudaEventRecord(passed_.get(), stream), "cudaEventRecord");
  }

  bool holds(const void* memory) const {
    const auto at = reinterpret_cast<std::uintptr_t>(memory);
    const auto begin = reinterpret_cast<std::uintptr_t>(device_.data());
    return at >= begin && at - begin < device_.bytes();
  }

  void reserve(std::size_t bytes) {
    grow_device(bytes);
    for (std::size_t i = 0; i < kDepth; ++i, next_ = (next_ + 1) % kDepth) claim(bytes);
  }

 private:
  static constexpr std::size_t kDepth = 3;
  struct Entry {
    PinnedBuffer pinned;
    Event copied;
  };

  void grow_device(std::size_t bytes) {
    if (bytes <= device_.bytes()) return;
    if (passed_.get() != nullptr) {
      check(cudaEventSynchronize(passed_.get()), "cudaEventSynchronize");
    }
    device_.at_least(bytes, "cudaMalloc");
  }

  std::array<Entry, kDepth> entries_;
  std::size_t next_ = 0;
  DeviceBuffer device_;
  Event passed_;  // after the last work on device_
};

}  // namespace algan::cuda
