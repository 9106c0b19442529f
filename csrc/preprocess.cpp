#include "algan/preprocess.h"

#include <algorithm>
#include <cmath>

#include "algan/geometry.h"
#include "algan/sample.h"
#include "cpu/axis_plan.h"
#include "cpu/dispatch.h"
#include "cpu/padding.h"
#include "cpu/share_out.h"
#include "cpu/workspace.h"

namespace algan {
namespace {

constexpr std::size_t kLineBytes = 64;

// Taps share their first and last row with their neighbours: with fewer rows between them,
// converting each row once costs less than not storing it saves.
constexpr double kPlanarStep = 2.5;

const std::uint8_t* readable_end(const ImageView& image) {
  const std::ptrdiff_t row_bytes =
      static_cast<std::ptrdiff_t>(image.width_px) * image.pixel_bytes();
  const std::ptrdiff_t last_row = image.row_stride * (image.height_px - 1);
  return image.data + std::max<std::ptrdiff_t>(last_row, 0) + row_bytes;
}

// One call: what all its boxes have in common, and where the next slot is.
class Run {
 public:
  // For boxes from `first` of `count` on.
  Run(const ImageView& image, const InputSpec& spec, const Slots& slots, std::size_t count,
      std::size_t first)
      : image_(image),
        spec_(spec),
        slots_(slots),
        normalisation_(normalisation_of(spec, slots.element)),
        area_(spec.downscale == Downscale::kArea),
        direct_(slots.element == Element::kFloat32 && slots.layout == Layout::kNchw),
        stream_(direct_ && worth_streaming(count)),
        next_(static_cast<std::uint8_t*>(slots.data) +
              first * spec.slot_elements() * slots.element_bytes()) {
    job_.image = &image_;
    job_.row_stride = image.row_stride;
    job_.readable_end = readable_end(image);
    job_.convert = !image.plain();
    job_.channels = image.grey() ? 1 : 3;
    job_.planar = image.mask == nullptr && job_.convert && job_.channels == 3 &&
                  image.format >= PixelFormat::kBayerRggb8;
    job_.pixel = job_.convert ? job_.channels : image.pixel_bytes();
    job_.red_plane = image.red_first() ? 0 : 2;
    job_.planes = normalisation_.planes;
    job_.mean_is_fourth = normalisation_.mean_is_fourth != 0;
    std::copy_n(normalisation_.scale, 3, job_.scale);
    std::copy_n(normalisation_.bias, 3, job_.bias);
  }

  void box(const Box& box) {
    const double left = std::floor(box.x_min);
    const double top = std::floor(box.y_min);
    const Region region = slot_region(spec_, box.x_max - box.x_min, box.y_max - box.y_min);
    place(static_cast<std::int64_t>(top), static_cast<std::int64_t>(left), region);
    job_.y = &workspace_.y.rows(box.y_min - top, box.y_max - top, region.height, area_);
    job_.planar_sums = job_.planar && job_.y->step >= kPlanarStep;
    job_.x = &workspace_.x.columns(box.x_min - left, box.x_max - left, region.width, area_,
                                   job_.planar_sums ? 1 : job_.channels, *job_.y);
    job_.extent = job_.x->extent;
    run(job_.y->max_count);
  }

  void box(const RotatedBox& box) {
    const Region region = slot_region(spec_, box.width, box.height);
    const RotatedSampling sampling =
        rotated_sampling(box, region, area_, image_.height_px, image_.width_px);
    place(sampling.top, sampling.left, region);
    job_.y = &workspace_.y.rows(0.0, region.height, region.height, false);
    job_.x = &workspace_.x.rows(0.0, region.width, region.width, false);
    job_.extent = sampling.width;
    job_.rotated = &sampling.plan;
    job_.rotated_source_height = sampling.height;
    run(sampling.height);
  }

 private:
  // A line of which only a part is streamed costs more than it saves.
  bool worth_streaming(std::size_t count) const {
    const std::size_t row_bytes = static_cast<std::size_t>(spec_.width_px) * sizeof(float);
    return cpu::streaming_pays(count * spec_.slot_elements() * sizeof(float)) &&
           row_bytes % kLineBytes == 0 &&
           reinterpret_cast<std::uintptr_t>(slots_.data) % kLineBytes == 0;
  }

  // Points the job at the crop and at the region of the next slot, and pads what is beside it.
  void place(std::int64_t top, std::int64_t left, const Region& region) {
    job_.top = top;
    job_.left = left;
    job_.source = image_.data + top * image_.row_stride + left * image_.pixel_bytes();
    const bool full = region.height == spec_.height_px && region.width == spec_.width_px;
    if (!full) cpu::pad_slot(spec_, slots_, normalisation_, region, next_);
    job_.stream = stream_ && full;
    const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(spec_.height_px) * spec_.width_px;
    const std::ptrdiff_t first =
        static_cast<std::ptrdiff_t>(region.top) * spec_.width_px + region.left;
    if (direct_) {
      job_.out = reinterpret_cast<float*>(next_) + first;
      job_.out_row = spec_.width_px;
      job_.out_plane = plane;
      return;
    }
    const bool interleaved = slots_.layout == Layout::kNhwc;
    const std::ptrdiff_t pixel = interleaved ? job_.planes : 1;
    const auto bytes = static_cast<std::ptrdiff_t>(slots_.element_bytes());
    job_.packing.element = static_cast<cpu::PackElement>(slots_.element);
    job_.packing.interleaved = interleaved;
    job_.packing.first = next_ + first * pixel * bytes;
    job_.packing.plane_elements = plane;
    job_.packing.row_elements = spec_.width_px * pixel;
  }

  void run(std::int32_t converted_rows) {
    workspace_.lend(job_, converted_rows);
    run_box_(job_);
    next_ += spec_.slot_elements() * slots_.element_bytes();
  }

  const ImageView& image_;
  const InputSpec& spec_;
  const Slots& slots_;
  const Normalisation normalisation_;
  const bool area_, direct_, stream_;
  const cpu::RunBox run_box_ = cpu::active_path().run_box;
  cpu::Workspace& workspace_ = cpu::thread_workspace();
  cpu::BoxJob job_{};
  std::uint8_t* next_;
};

template <typename AnyBox>
void run_all(const ImageView& image, const std::vector<AnyBox>& boxes, const InputSpec& spec,
             const Slots& slots, int threads) {
  const std::size_t count = boxes.size();
  cpu::share_out(count, threads, [&](std::size_t begin, std::size_t end) {
    Run run(image, spec, slots, count, begin);
    for (std::size_t i = begin; i < end; ++i) run.box(boxes[i]);
  });
}

}  // namespace

void preprocess(const ImageView& image, const std::vector<Box>& boxes, const InputSpec& spec,
                const Slots& slots, int threads) {
  run_all(image, boxes, spec, slots, threads);
}

void preprocess(const ImageView& image, const std::vector<RotatedBox>& boxes, const InputSpec& spec,
                const Slots& slots, int threads) {
  run_all(image, boxes, spec, slots, threads);
}

}  // namespace algan
