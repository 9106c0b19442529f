// What the SIMD paths have in common: fixed point (axis_plan.h, row_sum.h) in place of floats.
#pragma once

#include "ops_scalar.h"
#include "row_sum.h"

namespace algan::cpu::ALGAN_PATH {

struct FixedPointOps : ScalarOps {
  static constexpr float kBlendGain = static_cast<float>(kBlendOne);
  static constexpr float kSumOffset = 32768.0F;
  static float column_gain(const AxisPlan& x) { return 1.0F / static_cast<float>(x.sum_total); }

  static bool can_sum_rows(const AxisPlan& y) { return y.step <= kMaxSumStep; }
};

template <int kCount>
struct Steps {
  static constexpr int value = kCount;
};

// Calls work(Steps<n>()): a number of steps that the compiler knows, and unrolls, where it is
// small, else Steps<0>.
template <typename Work>
ALGAN_HD void with_steps(std::int32_t steps, const Work& work) {
  switch (steps) {
    case 1:
      return work(Steps<1>());
    case 2:
      return work(Steps<2>());
    case 3:
      return work(Steps<3>());
    case 4:
      return work(Steps<4>());
    case 5:
      return work(Steps<5>());
    default:
      return work(Steps<0>());
  }
}

}  // namespace algan::cpu::ALGAN_PATH
