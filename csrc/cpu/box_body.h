// The order of operations for one crop, shared by all paths. `Ops` are a path's own operations; the
// namespace ALGAN_PATH keeps each path's machine code apart.
#pragma once

#include <cstring>

#include "ops_scalar.h"
#include "pack.h"
#include "planar_blend.h"
#include "rows.h"

namespace algan::cpu::ALGAN_PATH {

// A row of bytes in RGB, BGR or grey: the image's own, or a copy, where it must be converted or
// where reading a few bytes past it would leave the image. Two neighbouring rows can be held at
// once.
template <typename Ops>
const std::uint8_t* row_at(const BoxJob& job, std::int32_t y) {
  const std::ptrdiff_t bytes = static_cast<std::ptrdiff_t>(job.extent) * job.pixel;
  std::uint8_t* copy = job.copied + (y & 1) * (bytes + kOverread);
  if (job.convert) {
    convert_row<Ops>(job, y, copy);
    return copy;
  }
  const std::uint8_t* row = job.source + job.row_stride * y;
  if (job.readable_end - row >= bytes + kOverread) return row;
  std::memcpy(copy, row, static_cast<std::size_t>(bytes));
  return copy;
}

inline FinishRow finish_for(const BoxJob& job, std::int32_t y) {
  FinishRow f{};
  f.size = job.x->size;
  f.planes = job.planes;
  f.mean_is_fourth = job.mean_is_fourth;
  f.stream = job.stream;
  f.plane_floats = job.out != nullptr ? job.out_plane : job.x->padded_size;
  f.next_row = job.out != nullptr ? job.out_row : 0;
  f.out = job.out != nullptr ? job.out + y * job.out_row : job.finished;
  for (int c = 0; c < 3; ++c) f.bias[c] = job.bias[c];
  return f;
}

// After a row is finished: to its slot, unless it was written there.
template <typename Ops>
void deliver_row(const BoxJob& job, const FinishRow& f, std::int32_t y) {
  if (job.out == nullptr) pack_row<Ops>(job.packing, f, y);
}

// RGB planes of a filtered row; a grey row stands for all three.
inline void rgb_planes(const BoxJob& job, const float* planes, const float* rgb[3]) {
  for (std::int32_t c = 0; c < 3; ++c) {
    const std::int32_t plane = job.red_plane == 0 ? c : 2 - c;
    rgb[c] = job.channels == 1 ? planes : planes + plane * job.x->padded_size;
  }
}

// Both axes blend two pixels: columns first, so that only pixels that count are touched, and each
// source row once however many output rows it serves. `blend_row` filters one. Rounding depends on
// which of two rows is added first: lower_first is for what finish_row_pair does.
template <typename Ops, typename BlendRow>
void blend_rows(const BoxJob& job, bool lower_first, BlendRow&& blend_row) {
  const std::ptrdiff_t plane_row = 3 * static_cast<std::ptrdiff_t>(job.x->padded_size);
  std::int32_t held[2] = {-1, -1};  // source row in each half of job.filtered, by parity
  for (std::int32_t y = 0; y < job.y->size; ++y) {
    const Tap& tap = job.y->taps[y];
    FinishRow f = finish_for(job, y);
    const bool swapped = lower_first && tap.count == 2;
    for (std::int32_t k = 0; k < tap.count; ++k) {
      const std::int32_t source_row = tap.start + k;
      float* planes = job.filtered + (source_row & 1) * plane_row;
      if (held[source_row & 1] != source_row) {
        blend_row(source_row, planes);
        held[source_row & 1] = source_row;
      }
      rgb_planes(job, planes, (k == 0) != swapped ? f.upper : f.lower);
    }
    for (int c = 0; c < 3; ++c) {
      const float unit = job.scale[c] * tap.unit / Ops::kBlendGain;
      f.upper_weight[c] = unit * (swapped ? tap.last : tap.first);
      f.lower_weight[c] = unit * (swapped ? tap.first : tap.last);
    }
    tap.count == 2 ? Ops::template finish_row<true>(f) : Ops::template finish_row<false>(f);
    deliver_row<Ops>(job, f, y);
  }
}

template <typename Ops>
void blend_box(const BoxJob& job) {
  blend_rows<Ops>(job, false, [&](std::int32_t y, float* planes) {
    Ops::blend_columns(*job.x, row_at<Ops>(job, y), job.pixel, planes);
  });
}

// Whether outputs are so far apart that they share no source row, and colour.
template <typename Ops>
bool distant_rows(const BoxJob& job) {
  return Ops::kBlendsRowPairs && job.channels == 3 && job.y->step >= 2.0;
}

// Gathering costs what converting so many pixels for each output does.
inline bool worth_gathering(const BoxJob& job) {
  return job.x->step >= (is_bayer(job.image->format) ? 2.0 : 3.0);
}

// The same where most pixels of a camera's format need not be converted at all.
template <typename Ops>
bool blend_gathered(const BoxJob& job) {
  if constexpr (Ops::kPlanar) {
    using Lanes = typename Ops::Lanes;
    if (!job.planar || job.x->padded_size < Lanes::kLanes || !worth_gathering(job)) return false;
    PlanarBlend<Lanes> rows(job);
    blend_rows<Ops>(job, distant_rows<Ops>(job),
                    [&](std::int32_t y, float* planes) { rows.blend(y, planes); });
    return true;
  }
  return false;
}

// The same for colour where outputs are so far apart that they share no source row.
template <typename Ops>
void blend_distant_rows(const BoxJob& job) {
  for (std::int32_t y = 0; y < job.y->size; ++y) {
    const Tap& tap = job.y->taps[y];
    FinishRow f = finish_for(job, y);
    for (int c = 0; c < 3; ++c) f.upper_weight[c] = job.scale[c] * tap.unit / Ops::kBlendGain;
    const Tap& next = job.y->taps[y + 1 < job.y->size ? y + 1 : y];
    const std::uint8_t* next_upper = job.source + job.row_stride * next.start;
    const std::uint8_t* upper = row_at<Ops>(job, tap.start);
    const RowPair rows{upper,         tap.count == 1 ? upper : row_at<Ops>(job, tap.start + 1),
                       next_upper,    next_upper + job.row_stride * (next.count - 1),
                       tap.first,     tap.last,
                       job.red_plane, job.pixel};
    Ops::finish_row_pair(*job.x, rows, f);
    deliver_row<Ops>(job, f, y);
  }
}

template <typename Ops>
void blend_whole_rows(const BoxJob& job) {
  if constexpr (Ops::kBlendsRowPairs) {
    if (distant_rows<Ops>(job)) return blend_distant_rows<Ops>(job);
  }
  blend_box<Ops>(job);
}

// The rows of a vertical tap, one below the other. Converted ones are kept for the next tap where
// it starts with the row that this one ended with.
template <typename Ops>
const std::uint8_t* tap_rows(const BoxJob& job, const Tap& tap, const Tap* previous) {
  if (!job.convert) return job.source + job.row_stride * tap.start;
  std::int32_t k = 0;
  if (previous != nullptr && previous->start + previous->count - 1 == tap.start) {
    if (previous->count > 1) {
      std::memcpy(job.converted, job.converted + (previous->count - 1) * job.converted_stride,
                  static_cast<std::size_t>(job.extent * job.pixel));
    }
    k = 1;
  }
  for (; k < tap.count; ++k) {
    convert_row<Ops>(job, tap.start + k, job.converted + k * job.converted_stride);
  }
  return job.converted;
}

// One vertical tap, then its columns, to job.filtered; returns the gain of the rows.
template <typename Ops>
float sum_tap(const BoxJob& job, const Tap& tap, const Tap* previous) {
  if constexpr (Ops::kPlanar) {
    if (job.planar_sums) {
      const std::int16_t* sums = nullptr;
      const float gain = sum_planar_rows<typename Ops::Lanes>(job, tap, sums);
      for (std::int32_t c = 0; c < 3; ++c) {
        Ops::sum_columns(*job.x, sums + c * job.sum_plane, 1,
                         job.filtered + c * job.x->padded_size);
      }
      return gain;
    }
  }
  const std::ptrdiff_t stride = job.convert ? job.converted_stride : job.row_stride;
  const std::uint8_t* source = tap_rows<Ops>(job, tap, previous);
  const float gain =
      Ops::sum_rows(tap, job.y->step, source, stride, job.extent * job.pixel, job.row);
  Ops::sum_columns(*job.x, job.row, job.pixel, job.filtered);
  return gain;
}

// At least one axis averages: rows first, since neighbouring bytes make wide vectors.
template <typename Ops>
void sum_box(const BoxJob& job) {
  const float column_gain = Ops::column_gain(*job.x);
  for (std::int32_t y = 0; y < job.y->size; ++y) {
    const Tap& tap = job.y->taps[y];
    const float gain = sum_tap<Ops>(job, tap, y > 0 ? &job.y->taps[y - 1] : nullptr);
    FinishRow f = finish_for(job, y);
    rgb_planes(job, job.filtered, f.upper);
    for (int c = 0; c < 3; ++c) {
      f.upper_weight[c] = job.scale[c] * gain * column_gain;
      f.bias[c] = job.bias[c] + job.scale[c] * gain * Ops::kSumOffset;
    }
    Ops::template finish_row<false>(f);
    deliver_row<Ops>(job, f, y);
  }
}

// A box that is turned: the crop is what it samples from, `x` has as many outputs as its rows.
template <typename Ops>
void rotated_box(const BoxJob& job) {
  const std::int32_t height = job.rotated_source_height;
  for (std::int32_t y = 0; job.convert && y < height; ++y) {
    convert_row<Ops>(job, y, job.converted + y * job.converted_stride);
  }
  RotatedSource source{job.convert ? job.converted : job.source,
                       job.convert ? job.converted_stride : job.row_stride, height, job.extent,
                       job.pixel};
  for (std::int32_t y = 0; y < job.y->size; ++y) {
    Ops::sample_rotated(*job.rotated, source, y, job.x->size, job.x->padded_size, job.filtered);
    FinishRow f = finish_for(job, y);
    rgb_planes(job, job.filtered, f.upper);
    for (int c = 0; c < 3; ++c) f.upper_weight[c] = job.scale[c];
    Ops::template finish_row<false>(f);
    deliver_row<Ops>(job, f, y);
  }
}

template <typename Ops>
void run_box(const BoxJob& job) {
  const bool two_taps = job.x->max_count <= 2 && job.y->max_count <= 2;
  if (job.rotated != nullptr) {
    rotated_box<Ops>(job);
  } else if (two_taps) {
    if (!blend_gathered<Ops>(job)) blend_whole_rows<Ops>(job);
  } else if (Ops::can_sum_rows(*job.y)) {
    sum_box<Ops>(job);
  } else {
    sum_box<ScalarOps>(job);
  }
  Ops::finish_box();
}

}  // namespace algan::cpu::ALGAN_PATH
