// The one launch behind a call: what the host hands to the kernel.
#pragma once

#include <cstdint>

#include "algan/sample.h"

namespace algan::cuda {

// So many boxes travel with the launch itself, at most 4 KiB in all; more are read from memory.
constexpr std::int32_t kFewBoxes = 16;
// A limit of CUDA: boxes are the grid's third axis.
constexpr std::int32_t kMaxBoxes = 65535;

struct FewBoxes {
  BoxSampling box[kFewBoxes];
};

struct Launch {
  ImageView image;  // in device memory
  SlotPlan slots;   // in device memory
  Normalisation normalisation;
  const BoxSampling* boxes;  // in device memory, or null: then they are in FewBoxes
  std::int32_t count;        // of boxes, 1 to kMaxBoxes
  std::int32_t tile_height;  // outputs below each other that a block of threads makes
};

// Enqueues; `stream` is a cudaStream_t. Throws DeviceError.
void launch_preprocess(Launch launch, const FewBoxes& few, void* stream);

}  // namespace algan::cuda
