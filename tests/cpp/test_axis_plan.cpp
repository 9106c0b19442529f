// Filter tables: weights add up, stay inside the crop, and agree with each other.
#include "cpu/axis_plan.h"

#include <cmath>
#include <initializer_list>

#include "check.h"

namespace {

using algan::Tap;
using algan::cpu::AxisPlan;
using algan::cpu::AxisPlanner;

void check_taps(const AxisPlan& plan) {
  for (std::int32_t i = 0; i < plan.padded_size; ++i) {
    const Tap& tap = plan.taps[i];
    CHECK(tap.start >= 0 && tap.count >= 1 && tap.start + tap.count <= plan.extent);
    CHECK(plan.starts[i] == tap.start);
    const float middle = tap.count > 2 ? static_cast<float>(tap.count - 2) : 0.0F;
    CHECK(std::fabs((tap.first + middle + tap.last) * tap.unit - 1.0F) < 1e-5F);
  }
}

void check_sums(const AxisPlan& plan, std::int32_t channels) {
  const std::int32_t copies = channels == 1 ? 1 : 4;
  for (std::int32_t i = 0; i < plan.padded_size; ++i) {
    std::int64_t total = 0;
    for (std::int32_t step = 0; step < plan.sum_steps; ++step) {
      const std::int16_t* lane = plan.sums + algan::cpu::sum_lane(plan, i, step);
      for (int k = 0; k < 8; ++k) total += lane[k];
    }
    CHECK(total == std::int64_t{copies} * plan.sum_total);
  }
}

void check_blend(const AxisPlan& plan) {
  for (std::int32_t i = 0; i < plan.padded_size; ++i) {
    const std::int16_t* rgb = plan.blend_rgb + 8 * algan::cpu::blend_place(i);
    CHECK(rgb[0] + rgb[1] == algan::cpu::kBlendOne);
    CHECK(rgb[0] == plan.blend_grey[2 * i] && rgb[7] == plan.blend_grey[2 * i + 1]);
  }
}

void check_both_axes(double begin, double end, std::int32_t size, bool area) {
  AxisPlanner row_planner;
  AxisPlanner column_planner;
  for (const double row_end : {1.0, 1000.0}) {
    const AxisPlan& rows = row_planner.rows(0.0, row_end, 4, area);
    for (const std::int32_t channels : {1, 3}) {
      const AxisPlan& columns = column_planner.columns(begin, end, size, area, channels, rows);
      check_taps(columns);
      const bool blends = rows.max_count <= 2 && columns.max_count <= 2;
      CHECK((columns.blend_rgb != nullptr) == blends && (columns.sums != nullptr) == !blends);
      blends ? check_blend(columns) : check_sums(columns, channels);
    }
  }
}

}  // namespace

int main() {
  for (const double begin : {0.0, 0.25, 0.999}) {
    for (const double length : {0.001, 0.5, 1.0, 2.0, 7.3, 64.0, 1920.0, 100000.0}) {
      for (const std::int32_t size : {1, 2, 7, 8, 9, 256}) {
        for (const bool area : {false, true}) check_both_axes(begin, begin + length, size, area);
      }
    }
  }
  // Same size: one whole pixel each, at any whole-pixel place.
  AxisPlanner planner;
  const AxisPlan& same = planner.rows(0.0, 17.0, 17, true);
  for (std::int32_t i = 0; i < 17; ++i) CHECK(same.taps[i].start == i && same.taps[i].count == 1);
  return check::failures();
}
