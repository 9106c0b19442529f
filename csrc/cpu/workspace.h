// Scratch memory and filter tables that a thread keeps from call to call.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

#include "axis_plan.h"
#include "box_job.h"

namespace algan::cpu {

// Zeroed memory aligned to a cache line. It only grows; growing loses the contents.
template <typename T>
class ScratchBuffer {
 public:
  T* at_least(std::size_t count) {
    if (count > count_) {
      memory_.reset();
      count_ = 0;
      memory_.reset(new (std::align_val_t{kAlignment}) T[count]());
      count_ = count;
    }
    return memory_.get();
  }

 private:
  static constexpr std::size_t kAlignment = 64;
  struct Free {
    void operator()(T* memory) const { ::operator delete[](memory, std::align_val_t{kAlignment}); }
  };
  std::unique_ptr<T[], Free> memory_;
  std::size_t count_ = 0;
};

struct Workspace {
  AxisPlanner x, y;
  ScratchBuffer<float> planes;
  ScratchBuffer<std::uint8_t> row, copied;

  // Points the job at scratch large enough for its plans.
  void lend(BoxJob& job) {
    const auto channels = static_cast<std::size_t>(job.channels);
    const auto row_bytes = static_cast<std::size_t>(job.x->extent) * channels;
    // Loops run to the widest tap from every start, rounded up to kGreyTaps.
    const auto past = static_cast<std::size_t>(job.x->max_count + kGreyTaps) * channels;
    const auto over = static_cast<std::size_t>(kOverread);
    job.row = row.at_least((row_bytes + past) * sizeof(float) + over);
    job.planes = planes.at_least(6 * static_cast<std::size_t>(job.x->padded_size));
    job.copied = copied.at_least(2 * (row_bytes + over));
  }
};

inline Workspace& thread_workspace() {
  thread_local Workspace workspace;
  return workspace;
}

}  // namespace algan::cpu
