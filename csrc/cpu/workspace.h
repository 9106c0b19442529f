// Scratch memory and filter tables that a thread keeps from call to call.
#pragma once

#include <algorithm>
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
  ScratchBuffer<float> filtered, finished;
  ScratchBuffer<std::uint8_t> row, copied, converted, narrow, edge, gathered;

  // Points the job at scratch large enough for its plans, its kind and `rows` converted rows.
  void lend(BoxJob& job, std::int32_t rows) {
    const auto pixel = static_cast<std::size_t>(job.pixel);
    const auto row_bytes = static_cast<std::size_t>(job.extent) * pixel;
    // Loops run to the widest tap from every start, rounded up to kGreyTaps.
    const auto past = static_cast<std::size_t>(job.x->max_count + kGreyTaps) * pixel;
    const auto over = static_cast<std::size_t>(kOverread);
    const auto padded = static_cast<std::size_t>(job.x->padded_size);
    std::size_t row_size = (row_bytes + past) * sizeof(float) + over;
    if (job.planar) row_size = std::max(row_size, lend_planar(job));
    job.row = row.at_least(row_size);
    job.filtered = filtered.at_least(6 * padded);
    job.copied = copied.at_least(2 * (row_bytes + over));
    if (job.out == nullptr) {
      job.finished = finished.at_least(5 * padded);
      job.packing.narrow = narrow.at_least(5 * padded * sizeof(std::uint16_t));
    }
    if (job.convert) {
      constexpr std::size_t kLine = 64;
      const std::size_t stride = (row_bytes + over + kLine - 1) / kLine * kLine;
      job.converted_stride = static_cast<std::ptrdiff_t>(stride);
      job.converted = converted.at_least(stride * static_cast<std::size_t>(rows));
    }
  }

 private:
  // Returns the bytes of three planes of sums.
  std::size_t lend_planar(BoxJob& job) {
    constexpr std::size_t kStrip = 64;  // as wide as a strip of any path, or wider
    const auto rows = static_cast<std::size_t>(job.y->max_count) + 2;
    const auto past = static_cast<std::size_t>(job.x->max_count + kGreyTaps);
    const std::size_t plane = static_cast<std::size_t>(job.extent) + kStrip + past;
    job.sum_plane = static_cast<std::ptrdiff_t>(plane);
    job.edge = edge.at_least(rows * 6 * kStrip);
    job.gathered = gathered.at_least(kGatheredBytes * static_cast<std::size_t>(job.x->padded_size));
    return 3 * plane * sizeof(std::int16_t);
  }
};

inline Workspace& thread_workspace() {
  thread_local Workspace workspace;
  return workspace;
}

}  // namespace algan::cpu
