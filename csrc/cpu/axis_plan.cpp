#include "axis_plan.h"

#include <algorithm>
#include <cmath>

namespace algan::cpu {
namespace {

std::int16_t fixed(double weight) { return static_cast<std::int16_t>(std::lround(weight)); }

constexpr std::int32_t kNoTable = 0;  // in place of a number of channels

std::size_t index(std::int32_t i) { return static_cast<std::size_t>(i); }

}  // namespace

const AxisPlan& AxisPlanner::rows(double begin, double end, std::int32_t size, bool area) {
  return plan(Key{begin, end, size, kNoTable, area, false});
}

const AxisPlan& AxisPlanner::columns(double begin, double end, std::int32_t size, bool area,
                                     std::int32_t channels, const AxisPlan& rows) {
  return plan(Key{begin, end, size, channels, area, rows.max_count <= 2});
}

bool AxisPlanner::holds(const Key& key) const {
  return plan_.size > 0 && key_.begin == key.begin && key_.end == key.end &&
         key_.size == key.size && key_.channels == key.channels && key_.area == key.area &&
         key_.blend_rows == key.blend_rows;
}

const AxisPlan& AxisPlanner::plan(const Key& key) {
  if (holds(key)) return plan_;
  plan_.size = 0;  // no valid plan if an allocation below throws
  key_ = key;
  AxisPlan next{};
  next.size = key.size;
  next.padded_size = (key.size + kColumnBlock - 1) / kColumnBlock * kColumnBlock;
  next.extent = static_cast<std::int32_t>(std::ceil(key.end));
  next.step = (key.end - key.begin) / static_cast<double>(key.size);
  const bool shrinks = key.area && next.step > 1.0;
  fill_taps(next, shrinks);
  if (key.channels != kNoTable) {
    next.max_count <= 2 && key.blend_rows ? fill_blend(next) : fill_sums(next, shrinks);
  }
  plan_ = next;
  return plan_;
}

void AxisPlanner::fill_taps(AxisPlan& next, bool shrinks) {
  taps_.resize(index(next.padded_size));
  starts_.resize(index(next.padded_size));
  for (std::int32_t i = 0; i < next.padded_size; ++i) {
    const std::int32_t output = std::min(i, next.size - 1);
    const Tap tap = shrinks ? area_tap(key_.begin, next.step, output, next.extent)
                            : bilinear_tap(key_.begin, next.step, output, next.extent);
    taps_[index(i)] = tap;
    starts_[index(i)] = tap.start;
    next.max_count = std::max(next.max_count, tap.count);
  }
  next.taps = taps_.data();
  next.starts = starts_.data();
}

void AxisPlanner::fill_blend(AxisPlan& next) {
  blend_rgb_.resize(taps_.size() * 8);
  blend_grey_.resize(taps_.size() * 2);
  for (std::int32_t i = 0; i < next.padded_size; ++i) {
    const Tap& tap = taps_[index(i)];
    const std::int16_t right = fixed(static_cast<double>(tap.unit * tap.last) * kBlendOne);
    const auto left = static_cast<std::int16_t>(kBlendOne - right);
    std::int16_t* rgb = blend_rgb_.data() + 8 * blend_place(i);
    for (int channel = 0; channel < 4; ++channel) {
      rgb[2 * channel] = left;
      rgb[2 * channel + 1] = right;
    }
    blend_grey_[2 * index(i)] = left;
    blend_grey_[2 * index(i) + 1] = right;
  }
  next.blend_rgb = blend_rgb_.data();
  next.blend_grey = blend_grey_.data();
}

// Whole pixels weigh `whole`; the last pixel takes what makes the total the same for every tap.
void AxisPlanner::fill_sums(AxisPlan& next, bool shrinks) {
  const double step = shrinks ? next.step : 1.0;
  const auto whole = static_cast<std::int32_t>(std::min(kSumLargest, kSumTotal / step));
  next.sum_total = static_cast<std::int32_t>(std::lround(step * whole));
  const std::int32_t taps_per_step = key_.channels == 1 ? kGreyTaps : kRgbTaps;
  const std::int32_t copies = key_.channels == 1 ? 1 : 4;
  next.sum_steps = (next.max_count + taps_per_step - 1) / taps_per_step;
  sums_.assign(taps_.size() * index(next.sum_steps) * 8, 0);
  for (std::int32_t i = 0; i < next.padded_size; ++i) {
    const Tap& tap = taps_[index(i)];
    std::int32_t left = next.sum_total;
    for (std::int32_t k = 0; k < tap.count; ++k) {
      const bool last = k == tap.count - 1;
      const std::int32_t first = fixed(static_cast<double>(tap.first) * whole);
      // A tap of a single pixel has no room for more than 16 bits; the total then is `whole`.
      const std::int32_t weight = std::min(last ? left : k == 0 ? first : whole, kBlendOne);
      left -= weight;
      const std::int32_t step_index = k / taps_per_step;
      std::int16_t* lane = sums_.data() + sum_lane(next, i, step_index);
      for (std::int32_t copy = 0; copy < copies; ++copy) {
        lane[2 * copy + k % taps_per_step] = static_cast<std::int16_t>(weight);
      }
    }
  }
  next.sums = sums_.data();
}

}  // namespace algan::cpu
