#include <cstring>
#include <string>

#include "algan/error.h"
#include "cuda/box_sampling.h"
#include "cuda/kernel.h"
#include "cuda/preprocess.h"
#include "cuda/staging.h"

namespace algan::cuda {
namespace {

// A plane of bytes: one of the image's, or its mask.
struct Plane {
  const std::uint8_t** data;  // in the view
  std::ptrdiff_t* stride;     // in the view; null if it is that of the plane before
  std::ptrdiff_t from_stride;
  std::int64_t rows, row_bytes;
};

constexpr std::size_t kMaxPlanes = 4;
constexpr std::int64_t kPlaneAlignment = 256;

struct Planes {
  Plane plane[kMaxPlanes];
  std::size_t count = 0;

  void add(const std::uint8_t** data, std::ptrdiff_t* stride, std::ptrdiff_t from_stride,
           std::int64_t rows, std::int64_t row_bytes) {
    if (*data != nullptr) plane[count++] = Plane{data, stride, from_stride, rows, row_bytes};
  }
};

Planes planes_of(ImageView& view) {
  Planes planes;
  planes.add(&view.data, &view.row_stride, view.row_stride, view.height_px,
             view.width_px * view.pixel_bytes());
  const bool planar = view.format == PixelFormat::kI420;
  const std::int64_t colour_bytes = planar ? view.width_px / 2 : view.width_px;
  planes.add(&view.chroma, &view.chroma_stride, view.chroma_stride, view.height_px / 2,
             colour_bytes);
  planes.add(&view.chroma_v, nullptr, view.chroma_stride, view.height_px / 2, colour_bytes);
  planes.add(&view.mask, &view.mask_stride, view.mask_stride, view.height_px, view.width_px);
  return planes;
}

void copy_rows(const Plane& plane, std::uint8_t* to) {
  const auto bytes = static_cast<std::size_t>(plane.row_bytes);
  const std::uint8_t* from = *plane.data;
  if (plane.from_stride == plane.row_bytes) {
    std::memcpy(to, from, bytes * static_cast<std::size_t>(plane.rows));
    return;
  }
  for (std::int64_t y = 0; y < plane.rows; ++y) {
    std::memcpy(to + y * plane.row_bytes, from + y * plane.from_stride, bytes);
  }
}

std::int64_t aligned(std::int64_t bytes) {
  return (bytes + kPlaneAlignment - 1) / kPlaneAlignment * kPlaneAlignment;
}

Launch launch_for(const ImageView& image, const InputSpec& spec, const Slots& slots,
                  std::size_t count) {
  Launch launch{};
  launch.image = image;
  launch.normalisation = normalisation_of(spec, slots.element);
  launch.slots = SlotPlan{slots.data,     slots.element, slots.layout,
                          spec.height_px, spec.width_px, launch.normalisation.planes};
  launch.count = static_cast<std::int32_t>(count);
  return launch;
}

}  // namespace

void check_device_memory(const void* memory, const char* name) {
  cudaPointerAttributes found{};
  const cudaError_t code = cudaPointerGetAttributes(&found, memory);
  if (code == cudaSuccess && found.type != cudaMemoryTypeUnregistered) return;
  (void)cudaGetLastError();  // some drivers report host memory as an error, which must not stay
  if (code != cudaSuccess && code != cudaErrorInvalidValue) {
    check(code, "cudaPointerGetAttributes");
  }
  throw InputError(std::string(name) +
                   ": expected memory that the CUDA device can reach, got an address that CUDA "
                   "does not know; pass device memory");
}

struct Preprocessor::Memory {
  Staging images, boxes;
};

Preprocessor::Preprocessor() {
  int devices = 0;
  check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  if (devices == 0) throw DeviceError("cudaGetDeviceCount: no CUDA device");
  memory_ = std::make_unique<Memory>();
}

Preprocessor::~Preprocessor() = default;

void Preprocessor::reserve(std::size_t image_bytes, std::size_t boxes) {
  memory_->images.reserve(image_bytes + kMaxPlanes * kPlaneAlignment);
  if (boxes > kFewBoxes) memory_->boxes.reserve(boxes * sizeof(BoxSampling));
}

ImageView Preprocessor::upload(const ImageView& image, StreamHandle stream) {
  ImageView view = image;
  const Planes planes = planes_of(view);
  std::int64_t bytes = 0;
  for (std::size_t i = 0; i < planes.count; ++i) {
    bytes += aligned(planes.plane[i].rows * planes.plane[i].row_bytes);
  }
  std::uint8_t* pinned = memory_->images.claim(static_cast<std::size_t>(bytes));
  std::int64_t offset[kMaxPlanes] = {};
  std::int64_t at = 0;
  for (std::size_t i = 0; i < planes.count; ++i) {
    offset[i] = at;
    copy_rows(planes.plane[i], pinned + at);
    at += aligned(planes.plane[i].rows * planes.plane[i].row_bytes);
  }
  const std::uint8_t* device =
      memory_->images.send(static_cast<std::size_t>(bytes), static_cast<cudaStream_t>(stream));
  for (std::size_t i = 0; i < planes.count; ++i) {
    const Plane& plane = planes.plane[i];
    *plane.data = device + offset[i];
    if (plane.stride != nullptr) *plane.stride = plane.row_bytes;
  }
  return view;
}

template <typename AnyBox>
void Preprocessor::run_all(const ImageView& image, const std::vector<AnyBox>& boxes,
                           const InputSpec& spec, const Slots& slots, StreamHandle handle) {
  if (boxes.empty()) return;
  if (boxes.size() > kMaxBoxes) {
    throw InputError("boxes: expected at most " + std::to_string(kMaxBoxes) + " a call, got " +
                     std::to_string(boxes.size()) + "; make several calls");
  }
  const auto stream = static_cast<cudaStream_t>(handle);
  Launch launch = launch_for(image, spec, slots, boxes.size());
  FewBoxes few{};
  const bool many = boxes.size() > kFewBoxes;
  const std::size_t bytes = boxes.size() * sizeof(BoxSampling);
  // Plain numbers may be written to raw memory, which is aligned far beyond their needs.
  auto* to = many ? reinterpret_cast<BoxSampling*>(memory_->boxes.claim(bytes)) : few.box;
  for (const AnyBox& box : boxes) *to++ = box_sampling(box, spec, image);
  if (many) {
    launch.boxes = reinterpret_cast<const BoxSampling*>(memory_->boxes.send(bytes, stream));
  }
  launch_preprocess(launch, few, stream);
  if (many) memory_->boxes.used(stream);
  if (memory_->images.holds(image.data)) memory_->images.used(stream);
}

void Preprocessor::run(const ImageView& image, const std::vector<Box>& boxes, const InputSpec& spec,
                       const Slots& slots, StreamHandle stream) {
  run_all(image, boxes, spec, slots, stream);
}

void Preprocessor::run(const ImageView& image, const std::vector<RotatedBox>& boxes,
                       const InputSpec& spec, const Slots& slots, StreamHandle stream) {
  run_all(image, boxes, spec, slots, stream);
}

}  // namespace algan::cuda
