// Where each output along one axis reads from, and with which weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "algan/pixel_math.h"

namespace algan::cpu {

// Columns are handled eight at a time; tables are padded to that by repeating the last output.
constexpr std::int32_t kColumnBlock = 8;
// Weights are also kept in fixed point for pmaddwd, which takes signed 16-bit numbers and adds
// neighbouring products to 32 bits. Two-tap blends add up to kBlendOne.
constexpr std::int32_t kBlendOne = 32767;
// Sums weigh 16-bit numbers, so all weights of a tap together stay below 2^16.
constexpr double kSumTotal = 65000.0;
constexpr double kSumLargest = 32760.0;
// Taps that one half of a vector holds: two pixels of three channels, or eight of one.
constexpr std::int32_t kRgbTaps = 2;
constexpr std::int32_t kGreyTaps = 8;

// Plain pointers: this travels into code compiled for one instruction set, where no template of
// the standard library may be instantiated.
struct AxisPlan {
  std::int32_t size;           // outputs
  std::int32_t padded_size;    // the same, rounded up to kColumnBlock
  std::int32_t extent;         // source pixels of the crop
  std::int32_t max_count;      // widest tap
  double step;                 // source pixels per output
  const Tap* taps;             // [padded_size]
  const std::int32_t* starts;  // [padded_size], Tap::start
  // For columns, if neither axis has more than two taps, else null:
  const std::int16_t* blend_rgb;   // [place][4][2], each pair four times, at blend_place()
  const std::int16_t* blend_grey;  // [padded_size][2]
  // For columns, if one has more, else null; zero beyond a tap's count:
  const std::int16_t* sums;  // at sum_lane(): RGB [4][2], each pair four times; grey [8]
  std::int32_t sum_steps;    // vectors for the widest tap
  std::int32_t sum_total;    // what the weights of each tap add up to
};

// Within a block of eight the order is 0 4 1 5 2 6 3 7, as the halves of vectors of two want it.
ALGAN_HD std::int32_t blend_place(std::int32_t output) {
  const std::int32_t in_block = output % kColumnBlock;
  return output - in_block + (in_block % 4) * 2 + in_block / 4;
}

// Index into `sums` of the eight numbers of an output's step. Outputs p and p + 4 of a block share
// a vector, one in each half.
ALGAN_HD std::ptrdiff_t sum_lane(const AxisPlan& plan, std::int32_t output, std::int32_t step) {
  const std::int32_t place = blend_place(output);
  const std::ptrdiff_t vector = static_cast<std::ptrdiff_t>(place / 2) * plan.sum_steps + step;
  return vector * 16 + static_cast<std::ptrdiff_t>(place % 2) * 8;
}

// Keeps the tables of the last plan: boxes of one size at whole-pixel places share them.
class AxisPlanner {
 public:
  // [begin, end) relative to the first source pixel of the crop, so 0 <= begin < 1.
  const AxisPlan& rows(double begin, double end, std::int32_t size, bool area);
  // Columns also get the table that goes with the plan of the rows.
  const AxisPlan& columns(double begin, double end, std::int32_t size, bool area,
                          std::int32_t channels, const AxisPlan& rows);

 private:
  struct Key {
    double begin, end;
    std::int32_t size, channels;
    bool area, blend_rows;
  };

  bool holds(const Key& key) const;
  const AxisPlan& plan(const Key& key);
  void fill_taps(AxisPlan& next, bool shrinks);
  void fill_blend(AxisPlan& next);
  void fill_sums(AxisPlan& next, bool shrinks);

  Key key_{};
  AxisPlan plan_{};
  std::vector<Tap> taps_;
  std::vector<std::int32_t> starts_;
  std::vector<std::int16_t> blend_rgb_, blend_grey_, sums_;
};

}  // namespace algan::cpu
