// algan/preprocess.h on a CUDA device; plain C++, for callers without CUDA's headers.
//
// Everything is enqueued on the stream that the caller names, and nothing waits for it: what is
// written can be read on that stream, or elsewhere after it has been synchronised. The results
// equal those of the CPU's scalar path bit by bit.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "algan/preprocess.h"

namespace algan::cuda {

// A cudaStream_t (the driver's CUstream is the same); null is the legacy default stream.
using StreamHandle = void*;

// Throws InputError unless the device can reach this memory: its own, managed, or pinned.
void check_device_memory(const void* memory, const char* name);

// Owns the memory through which images and boxes travel. It belongs to the CUDA context that is
// current in the calling thread when it is made, and to one thread at a time; calls may name
// different streams.
//
// The host waits only where memory grows (avoid it by reserve()), where the stream is three copies
// behind, and in the destructor. Up to 16 boxes of an image that lies in device memory take no
// memory of this object's at all, so that such calls can be captured into a CUDA graph.
class Preprocessor {
 public:
  // Throws DeviceError where there is no driver or no device.
  Preprocessor();
  ~Preprocessor();
  Preprocessor(const Preprocessor&) = delete;
  Preprocessor& operator=(const Preprocessor&) = delete;

  // Room for images of so many bytes, with their mask, and for so many boxes a call.
  void reserve(std::size_t image_bytes, std::size_t boxes);

  // Copies an image, and its mask, from host memory; reads it before returning. The view is of
  // this object's device memory: for `run` on the same stream, until the next upload.
  ImageView upload(const ImageView& image, StreamHandle stream);

  // As algan::preprocess, with the image's and the slots' pointers in device memory; both must stay
  // until the stream has passed. Throws InputError above 65535 boxes.
  void run(const ImageView& image, const std::vector<Box>& boxes, const InputSpec& spec,
           const Slots& slots, StreamHandle stream);
  void run(const ImageView& image, const std::vector<RotatedBox>& boxes, const InputSpec& spec,
           const Slots& slots, StreamHandle stream);

 private:
  struct Memory;

  template <typename AnyBox>
  void run_all(const ImageView& image, const std::vector<AnyBox>& boxes, const InputSpec& spec,
               const Slots& slots, StreamHandle stream);

  std::unique_ptr<Memory> memory_;
};

}  // namespace algan::cuda
