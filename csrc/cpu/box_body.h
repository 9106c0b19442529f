// The order of operations for one crop, shared by all paths. `Ops` are a path's own operations; the
// namespace ALGAN_PATH keeps each path's machine code apart.
#pragma once

#include <cstring>

#include "ops_scalar.h"

namespace algan::cpu::ALGAN_PATH {

// The row itself, or a padded copy where reading a few bytes past it would leave the image. Two
// neighbouring rows can be held at once.
inline const std::uint8_t* overreadable_row(const BoxJob& job, std::int32_t y) {
  const std::uint8_t* row = job.source + job.row_stride * y;
  const std::ptrdiff_t bytes = static_cast<std::ptrdiff_t>(job.x->extent) * job.channels;
  if (job.readable_end - row >= bytes + kOverread) return row;
  std::uint8_t* copy = job.copied + (y & 1) * (bytes + kOverread);
  std::memcpy(copy, row, static_cast<std::size_t>(bytes));
  return copy;
}

inline FinishRow finish_for(const BoxJob& job, std::int32_t y) {
  FinishRow f{};
  f.plane_floats = static_cast<std::ptrdiff_t>(job.x->size) * job.y->size;
  f.out = job.out + static_cast<std::ptrdiff_t>(y) * job.x->size;
  f.size = job.x->size;
  f.pooled = job.pooled;
  f.stream = job.stream;
  for (int c = 0; c < 3; ++c) f.bias[c] = job.bias[c];
  return f;
}

// RGB planes of a filtered row; a grey row stands for all three.
inline void rgb_planes(const BoxJob& job, const float* planes, const float* rgb[3]) {
  for (std::int32_t c = 0; c < 3; ++c) {
    const std::int32_t plane = job.red_plane == 0 ? c : 2 - c;
    rgb[c] = job.channels == 1 ? planes : planes + plane * job.x->padded_size;
  }
}

// Both axes blend two pixels: columns first, so that only pixels that count are touched, and each
// source row once however many output rows it serves.
template <typename Ops>
void blend_box(const BoxJob& job) {
  const std::ptrdiff_t plane_row = 3 * static_cast<std::ptrdiff_t>(job.x->padded_size);
  std::int32_t held[2] = {-1, -1};  // source row in each half of job.planes, by parity
  for (std::int32_t y = 0; y < job.y->size; ++y) {
    const Tap& tap = job.y->taps[y];
    FinishRow f = finish_for(job, y);
    for (std::int32_t k = 0; k < tap.count; ++k) {
      const std::int32_t source_row = tap.start + k;
      float* planes = job.planes + (source_row & 1) * plane_row;
      if (held[source_row & 1] != source_row) {
        Ops::blend_columns(*job.x, overreadable_row(job, source_row), job.channels, planes);
        held[source_row & 1] = source_row;
      }
      rgb_planes(job, planes, k == 0 ? f.upper : f.lower);
    }
    for (int c = 0; c < 3; ++c) {
      const float unit = job.scale[c] * tap.unit / Ops::kBlendGain;
      f.upper_weight[c] = unit * tap.first;
      f.lower_weight[c] = unit * tap.last;
    }
    tap.count == 2 ? Ops::template finish_row<true>(f) : Ops::template finish_row<false>(f);
  }
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
    const RowPair rows{overreadable_row(job, tap.start),
                       overreadable_row(job, tap.start + tap.count - 1),
                       next_upper,
                       next_upper + job.row_stride * (next.count - 1),
                       tap.first,
                       tap.last,
                       job.red_plane};
    Ops::finish_row_pair(*job.x, rows, f);
  }
}

// At least one axis averages: rows first, since neighbouring bytes make wide vectors.
template <typename Ops>
void sum_box(const BoxJob& job) {
  const std::int32_t bytes = job.x->extent * job.channels;
  const float column_gain = Ops::column_gain(*job.x);
  for (std::int32_t y = 0; y < job.y->size; ++y) {
    const Tap& tap = job.y->taps[y];
    const std::uint8_t* source = job.source + job.row_stride * tap.start;
    const float gain = Ops::sum_rows(tap, job.y->step, source, job.row_stride, bytes, job.row);
    Ops::sum_columns(*job.x, job.row, job.channels, job.planes);
    FinishRow f = finish_for(job, y);
    rgb_planes(job, job.planes, f.upper);
    for (int c = 0; c < 3; ++c) {
      f.upper_weight[c] = job.scale[c] * gain * column_gain;
      f.bias[c] = job.bias[c] + job.scale[c] * gain * Ops::kSumOffset;
    }
    Ops::template finish_row<false>(f);
  }
}

template <typename Ops>
void run_box(const BoxJob& job) {
  const bool two_taps = job.x->max_count <= 2 && job.y->max_count <= 2;
  if (two_taps) {
    if constexpr (Ops::kBlendsRowPairs) {
      if (job.channels == 3 && job.y->step >= 2.0) {
        blend_distant_rows<Ops>(job);
        Ops::finish_box();
        return;
      }
    }
    blend_box<Ops>(job);
  } else if (Ops::can_sum_rows(*job.y)) {
    sum_box<Ops>(job);
  } else {
    sum_box<ScalarOps>(job);
  }
  Ops::finish_box();
}

}  // namespace algan::cpu::ALGAN_PATH
