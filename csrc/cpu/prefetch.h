// What finish_row_pair asks the memory for in advance.
#pragma once

#include "ops_scalar.h"

namespace algan::cpu::ALGAN_PATH {

// Which bytes of the next two source rows go with a block of columns: every cache line once where
// columns are close, one line for each column where they are not.
struct Prefetch {
  std::int32_t count, distance;  // distance in bytes
};

ALGAN_HD Prefetch prefetch_for(const AxisPlan& x, std::int32_t pixel) {
  constexpr std::int32_t kLine = 64;
  const auto bytes = static_cast<std::int32_t>(x.step * pixel * kColumnBlock);
  const std::int32_t lines = bytes / kLine + 1;
  const std::int32_t count = lines < kColumnBlock ? lines : kColumnBlock;
  return Prefetch{count, bytes / count};
}

// What the block at i of the next output row will read and write: source rows are skipped and
// planes lie far apart, so that the processor does not foresee either.
ALGAN_HD void prefetch_pair(const AxisPlan& x, const RowPair& rows, const FinishRow& f,
                            const Prefetch& prefetch, std::int32_t i) {
  std::ptrdiff_t at = rows.pixel * static_cast<std::ptrdiff_t>(x.starts[i]);
  for (std::int32_t k = 0; k < prefetch.count; ++k, at += prefetch.distance) {
    __builtin_prefetch(rows.next_upper + at);
    __builtin_prefetch(rows.next_lower + at);
  }
  const std::ptrdiff_t planes = f.planes;
  for (std::ptrdiff_t p = 0; p < planes; ++p) {
    __builtin_prefetch(f.out + p * f.plane_floats + f.next_row + i, 1);
  }
}

}  // namespace algan::cpu::ALGAN_PATH
