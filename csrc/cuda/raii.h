// Owners of what the CUDA runtime hands out. All of them live in the context that is current in the
// calling thread: none is ever switched to, so that a caller with a context of its own (pycuda)
// keeps it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>
#include <utility>

#include "algan/error.h"

namespace algan::cuda {

inline void check(cudaError_t code, const char* call) {
  if (code == cudaSuccess) return;
  throw DeviceError(std::string(call) + ": " + cudaGetErrorString(code));
}

// Destructors cannot report: an error there has been, or will be, met by another call.
struct StreamDeleter {
  void operator()(cudaStream_t stream) const { (void)cudaStreamDestroy(stream); }
};
struct EventDeleter {
  void operator()(cudaEvent_t event) const { (void)cudaEventDestroy(event); }
};
struct DeviceDeleter {
  void operator()(void* memory) const { (void)cudaFree(memory); }
};
struct PinnedDeleter {
  void operator()(void* memory) const { (void)cudaFreeHost(memory); }
};

// A handle that is null or owned; std::unique_ptr would need the opaque types to be complete.
template <typename Handle, typename Deleter>
class Owner {
 public:
  Owner() = default;
  explicit Owner(Handle handle) : handle_(handle) {}
  ~Owner() { reset(); }
  Owner(Owner&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owner& operator=(Owner&& other) noexcept {
    if (this != &other) {
      reset();
      handle_ = std::exchange(other.handle_, nullptr);
    }
    return *this;
  }
  Handle get() const { return handle_; }
  void reset() {
    if (handle_ != nullptr) Deleter{}(handle_);
    handle_ = nullptr;
  }

 private:
  Handle handle_ = nullptr;
};

using Stream = Owner<cudaStream_t, StreamDeleter>;
using Event = Owner<cudaEvent_t, EventDeleter>;

// Not ordered after the legacy default stream.
inline Stream make_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return Stream(stream);
}

// Without times, which would cost more; waiting for it lets the processor sleep.
inline Event make_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync),
        "cudaEventCreateWithFlags");
  return Event(event);
}

// Memory that only grows; growing loses the contents. The caller sees to it that nothing in flight
// uses it any more.
template <typename Deleter, cudaError_t (*kAllocate)(void**, std::size_t)>
class Buffer {
 public:
  void* data() const { return memory_.get(); }
  std::size_t bytes() const { return bytes_; }
  void at_least(std::size_t bytes, const char* call) {
    if (bytes <= bytes_) return;
    memory_.reset();
    bytes_ = 0;
    void* memory = nullptr;
    check(kAllocate(&memory, bytes), call);
    memory_ = Owner<void*, Deleter>(memory);
    bytes_ = bytes;
  }

 private:
  Owner<void*, Deleter> memory_;
  std::size_t bytes_ = 0;
};

inline cudaError_t allocate_device(void** memory, std::size_t bytes) {
  return cudaMalloc(memory, bytes);
}
inline cudaError_t allocate_pinned(void** memory, std::size_t bytes) {
  return cudaMallocHost(memory, bytes);
}

using DeviceBuffer = Buffer<DeviceDeleter, allocate_device>;
using PinnedBuffer = Buffer<PinnedDeleter, allocate_pinned>;

}  // namespace algan::cuda
