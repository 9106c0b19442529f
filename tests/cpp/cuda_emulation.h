// For tests: as much of CUDA's runtime as csrc/cuda uses, on the processor, so that the kernels'
// very source is compiled as C++ and run over whole grids under sanitizers.
//
// - "Device" memory is the heap's; the sanitizers watch it.
// - Streams are lazy: work runs when somebody waits for it, as late as CUDA may run it. Memory that
//   is reused or freed too early gives wrong numbers or a report.
// - A grid's blocks are spread over host threads, so that ThreadSanitizer sees two blocks that
//   write the same place.
// - A block's threads run one after the other. At __syncthreads() a thread gives up; when all
//   threads have come that far, each runs again from its start and passes. A kernel may have one
//   barrier, and must do nothing before it that cannot be done twice.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#define __global__ inline
#define __device__ inline
#define __noinline__
#define __shared__ static thread_local
#define __grid_constant__
#define __launch_bounds__(threads)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3() = default;
  constexpr dim3(unsigned width, unsigned height, unsigned depth) : x(width), y(height), z(depth) {}
};

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

enum cudaError_t { cudaSuccess, cudaErrorInvalidValue, cudaErrorMemoryAllocation };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
enum cudaMemoryType { cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice };
constexpr unsigned cudaStreamNonBlocking = 1, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2;

struct cudaPointerAttributes {
  cudaMemoryType type;
};

namespace emulation {

// Work in order; how much of it was ever added and how much is done.
struct Stream {
  std::deque<std::function<void()>> work;
  std::uint64_t added = 0, done = 0;

  void add(std::function<void()> item) {
    work.push_back(std::move(item));
    ++added;
  }
  void run_until(std::uint64_t count) {
    while (done < count) {
      const std::function<void()> item = std::move(work.front());
      work.pop_front();
      ++done;
      item();
    }
  }
};

struct Event {
  Stream* stream = nullptr;
  std::uint64_t position = 0;

  void wait() const {
    if (stream != nullptr) stream->run_until(position);
  }
};

struct Runtime {
  Stream default_stream;
  std::set<Stream*> streams;
  std::map<void*, std::size_t> memory;
  int waits = 0;     // how often the host waited for an event that had not come
  int launches = 0;  // of kernels
};

inline Runtime& runtime() {
  static Runtime instance;
  return instance;
}

inline Stream& stream_of(Stream* stream) {
  return stream != nullptr ? *stream : runtime().default_stream;
}

inline void run_everything() {
  Stream& first = runtime().default_stream;
  first.run_until(first.added);
  for (Stream* stream : runtime().streams) stream->run_until(stream->added);
}

// ---- threads of a block
// ---------------------------------------------------------------------------

inline thread_local std::jmp_buf at_barrier;
inline thread_local bool stops_at_barrier, some_stopped;

template <typename Kernel>
void run_thread(const Kernel& kernel) {
  if (setjmp(at_barrier) == 0) {
    kernel();
  } else {
    some_stopped = true;
  }
}

template <typename Kernel>
void run_block(const Kernel& kernel) {
  some_stopped = false;
  for (const bool first_pass : {true, false}) {
    stops_at_barrier = first_pass;
    if (!first_pass && !some_stopped) return;
    for (unsigned i = 0; i < blockDim.x * blockDim.y * blockDim.z; ++i) {
      threadIdx = dim3(i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y);
      run_thread(kernel);
    }
  }
}

template <typename Kernel>
void run_grid(const Kernel& kernel, dim3 grid, dim3 block) {
  constexpr unsigned kThreads = 2;
  const auto run_share = [&](unsigned share) {
    gridDim = grid;
    blockDim = block;
    for (unsigned i = share; i < grid.x * grid.y * grid.z; i += kThreads) {
      blockIdx = dim3(i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y);
      run_block(kernel);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned share = 1; share < kThreads && share < grid.x * grid.y * grid.z; ++share) {
    threads.emplace_back(run_share, share);
  }
  run_share(0);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace emulation

using cudaStream_t = emulation::Stream*;
using cudaEvent_t = emulation::Event*;

inline void __syncthreads() {
  if (emulation::stops_at_barrier) std::longjmp(emulation::at_barrier, 1);
}

// ---- the runtime's calls
// --------------------------------------------------------------------------

inline const char* cudaGetErrorString(cudaError_t code) {
  return code == cudaSuccess             ? "no error"
         : code == cudaErrorInvalidValue ? "invalid argument"
                                         : "out of memory";
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

inline cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  if (bytes > std::size_t{1} << 40) return cudaErrorMemoryAllocation;
  *memory = std::malloc(bytes);
  if (*memory == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*memory, 0xA5, bytes);
  emulation::runtime().memory[*memory] = bytes;
  return cudaSuccess;
}
inline cudaError_t cudaMallocHost(void** memory, std::size_t bytes) {
  return cudaMalloc(memory, bytes);
}
// CUDA's own may wait for the device; this one does not, so that nothing relies on it.
inline cudaError_t cudaFree(void* memory) {
  emulation::runtime().memory.erase(memory);
  std::free(memory);
  return cudaSuccess;
}
inline cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }

inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void* memory) {
  found->type = cudaMemoryTypeUnregistered;
  for (const auto& [begin, bytes] : emulation::runtime().memory) {
    const auto offset =
        reinterpret_cast<std::uintptr_t>(memory) - reinterpret_cast<std::uintptr_t>(begin);
    if (offset < bytes) found->type = cudaMemoryTypeDevice;
  }
  return cudaSuccess;
}

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new emulation::Stream;
  emulation::runtime().streams.insert(*stream);
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  emulation::Stream& stream = emulation::stream_of(handle);
  stream.run_until(stream.added);
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  (void)cudaStreamSynchronize(stream);
  emulation::runtime().streams.erase(stream);
  delete stream;
  return cudaSuccess;
}

inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new emulation::Event;
  return cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->stream = &emulation::stream_of(stream);
  event->position = event->stream->added;
  return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->stream != nullptr && event->stream->done < event->position) {
    ++emulation::runtime().waits;
  }
  event->wait();
  return cudaSuccess;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  emulation::stream_of(stream).add([recorded = *event] { recorded.wait(); });
  return cudaSuccess;
}

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                                   cudaStream_t stream) {
  emulation::stream_of(stream).add([=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

template <typename... Wanted, typename... Given>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Wanted...),
                               Given&&... given) {
  const dim3 grid = config->gridDim, block = config->blockDim;
  if (block.x * block.y * block.z > 1024 || grid.z > 65535) return cudaErrorInvalidValue;
  ++emulation::runtime().launches;
  emulation::stream_of(config->stream).add([=] {  // arguments are copied, as CUDA does it
    emulation::run_grid([&] { kernel(given...); }, grid, block);
  });
  return cudaSuccess;
}
