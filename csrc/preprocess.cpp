#include "algan/preprocess.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "algan/error.h"
#include "cpu/axis_plan.h"
#include "cpu/dispatch.h"
#include "cpu/workspace.h"

namespace algan {
namespace {

// Keeps every pixel index and row length within 32 bits.
constexpr std::int64_t kMaxSidePx = 1 << 20;
constexpr std::int32_t kMaxOutputPx = 4096;
// An output this large is not read back from the second-level cache: write past it, where rows
// are whole cache lines (a line of which only a part is streamed costs more than it saves).
constexpr std::size_t kStreamBytes = std::size_t{4} << 20;
constexpr std::size_t kLineBytes = 64;

bool worth_streaming(const InputSpec& spec, std::size_t slots, const float* out) {
  const std::size_t row_bytes = static_cast<std::size_t>(spec.width_px) * sizeof(float);
  return slots * spec.slot_floats() * sizeof(float) >= kStreamBytes &&
         row_bytes % kLineBytes == 0 && reinterpret_cast<std::uintptr_t>(out) % kLineBytes == 0;
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.7g", value);
  return text;
}

std::string describe(const Box& box) {
  return "(" + number(box.x_min) + ", " + number(box.y_min) + ", " + number(box.x_max) + ", " +
         number(box.y_max) + ")";
}

Box clip_box(const ImageView& image, const Box& box, std::size_t index) {
  const std::string name = "boxes[" + std::to_string(index) + "]: ";
  if (!std::isfinite(box.x_min) || !std::isfinite(box.y_min) || !std::isfinite(box.x_max) ||
      !std::isfinite(box.y_max)) {
    throw InputError(name + "expected finite numbers (x_min, y_min, x_max, y_max), got " +
                     describe(box));
  }
  const auto width = static_cast<double>(image.width_px);
  const auto height = static_cast<double>(image.height_px);
  const Box clipped{std::max(box.x_min, 0.0), std::max(box.y_min, 0.0), std::min(box.x_max, width),
                    std::min(box.y_max, height)};
  if (!(clipped.x_max > clipped.x_min) || !(clipped.y_max > clipped.y_min)) {
    throw InputError(name + "expected x_min < x_max and y_min < y_max inside the image of " +
                     std::to_string(image.width_px) + " x " + std::to_string(image.height_px) +
                     " px (width x height), got " + describe(box));
  }
  return clipped;
}

const std::uint8_t* readable_end(const ImageView& image) {
  const std::ptrdiff_t row_bytes = static_cast<std::ptrdiff_t>(image.width_px) * image.channels();
  const std::ptrdiff_t last_row = image.row_stride * (image.height_px - 1);
  return image.data + std::max<std::ptrdiff_t>(last_row, 0) + row_bytes;
}

cpu::BoxJob common_job(const ImageView& image, const InputSpec& spec) {
  cpu::BoxJob job{};
  job.row_stride = image.row_stride;
  job.readable_end = readable_end(image);
  job.channels = image.channels();
  job.red_plane = image.format == PixelFormat::kBgr8 ? 2 : 0;
  job.pooled = spec.pooled_channels;
  for (std::size_t c = 0; c < 3; ++c) {
    job.scale[c] = static_cast<float>(1.0 / (255.0 * spec.std[c]));
    job.bias[c] = static_cast<float>(-spec.mean[c] / spec.std[c]);
  }
  return job;
}

}  // namespace

void check_image(const ImageView& image) {
  if (image.height_px < 1 || image.width_px < 1 || image.height_px > kMaxSidePx ||
      image.width_px > kMaxSidePx) {
    throw InputError("image: expected 1 to " + std::to_string(kMaxSidePx) +
                     " px in height and width, got " + std::to_string(image.height_px) + " x " +
                     std::to_string(image.width_px));
  }
}

void check_spec(const InputSpec& spec) {
  if (spec.height_px < 1 || spec.width_px < 1 || spec.height_px > kMaxOutputPx ||
      spec.width_px > kMaxOutputPx) {
    throw InputError("spec: expected height_px and width_px of 1 to 4096, got " +
                     std::to_string(spec.height_px) + " and " + std::to_string(spec.width_px));
  }
  for (std::size_t c = 0; c < 3; ++c) {
    if (!std::isfinite(spec.mean[c]) || !std::isfinite(spec.std[c]) || spec.std[c] <= 0.0) {
      throw InputError("spec: expected finite means and stds above 0, got mean " +
                       number(spec.mean[c]) + " and std " + number(spec.std[c]));
    }
  }
}

std::vector<Box> clip_boxes(const ImageView& image, const std::vector<Box>& boxes) {
  std::vector<Box> clipped;
  clipped.reserve(boxes.size());
  for (const Box& box : boxes) clipped.push_back(clip_box(image, box, clipped.size()));
  return clipped;
}

void preprocess(const ImageView& image, const std::vector<Box>& boxes, const InputSpec& spec,
                float* out) {
  const cpu::RunBox run_box = cpu::active_path().run_box;
  cpu::Workspace& workspace = cpu::thread_workspace();
  cpu::BoxJob job = common_job(image, spec);
  job.stream = worth_streaming(spec, boxes.size(), out);
  const bool area = spec.downscale == Downscale::kArea;
  for (const Box& box : boxes) {
    const double left = std::floor(box.x_min);
    const double top = std::floor(box.y_min);
    job.y = &workspace.y.rows(box.y_min - top, box.y_max - top, spec.height_px, area);
    job.x = &workspace.x.columns(box.x_min - left, box.x_max - left, spec.width_px, area,
                                 job.channels, *job.y);
    workspace.lend(job);
    job.source = image.data + static_cast<std::ptrdiff_t>(top) * image.row_stride +
                 static_cast<std::ptrdiff_t>(left) * job.channels;
    job.out = out;
    run_box(job);
    out += spec.slot_floats();
  }
}

}  // namespace algan
