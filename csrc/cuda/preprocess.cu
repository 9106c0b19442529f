// The kernel: a thread makes one output column of a tile, all channels of each pixel, so that
// neighbouring threads store neighbouring pixels.
//
// Taps are computed in double precision, which small GPUs have little of: once for each tile, not
// for each output. Compiled without fused multiply-adds (-fmad=false), see algan/sample.h.
#include <cuda_runtime.h>

#include "cuda/kernel.h"
#include "cuda/raii.h"

namespace algan::cuda {
namespace {

constexpr std::int32_t kTileWidth = 32;
constexpr std::int32_t kThreadRows = 8;
constexpr std::int32_t kMaxTileHeight = 32;
// From so many tiles on, even the largest GPU is kept busy by fewer, taller ones.
constexpr std::int64_t kManyTiles = 8192;

static_assert(sizeof(Launch) + sizeof(FewBoxes) <= 4096, "CUDA's limit for what a launch carries");
static_assert(kMaxTileHeight <= kTileWidth * (kThreadRows - 1), "one thread for each row's tap");

// One copy of the code for all formats, not one for each of the many places that read a pixel:
// those would fill the registers.
__device__ __noinline__ std::uint32_t packed_rgb(const ImageView& image, std::int64_t y,
                                                 std::int64_t x) {
  std::uint8_t rgb[3];
  load_rgb(image, y, x, rgb);
  return rgb[0] | std::uint32_t{rgb[1]} << 8 | std::uint32_t{rgb[2]} << 16;
}

// Pixels that have to be converted, or that a mask hides.
struct ConvertedPixels {
  static constexpr int kChannels = 3;
  const ImageView* image;
  std::int64_t top, left;

  __device__ static ConvertedPixels of(const ImageView& image, std::int64_t top,
                                       std::int64_t left) {
    return ConvertedPixels{&image, top, left};
  }
  __device__ float operator()(std::int32_t y, std::int32_t x, int c) const {
    return static_cast<float>(packed_rgb(*image, top + y, left + x) >> (8 * c) & 0xFFU);
  }
  __device__ void load(std::int32_t y, std::int32_t x, float* value) const {
    const std::uint32_t rgb = packed_rgb(*image, top + y, left + x);
    for (int c = 0; c < kChannels; ++c) value[c] = static_cast<float>(rgb >> (8 * c) & 0xFFU);
  }
};

struct Tile {
  std::int32_t x, y;  // first output
};

__device__ Tile this_tile(std::int32_t tile_height) {
  return Tile{static_cast<std::int32_t>(blockIdx.x) * kTileWidth,
              static_cast<std::int32_t>(blockIdx.y) * tile_height};
}

// Output i of the slot as one of the region; beside it, the nearest one.
__device__ std::int32_t in_region(std::int32_t i, std::int32_t begin, std::int32_t size) {
  const std::int32_t inside = i - begin;
  return inside < 0 ? 0 : inside < size ? inside : size - 1;
}

// The first threads of a block, one tap each.
__device__ void fill_taps(const BoxSampling& box, const Tile& tile, std::int32_t tile_height,
                          Tap* columns, Tap* rows) {
  const auto thread = static_cast<std::int32_t>(threadIdx.y * kTileWidth + threadIdx.x);
  const std::int32_t row = thread - kTileWidth;
  const Region& region = box.region;
  if (row < 0) {
    columns[thread] = tap_of(box.x, in_region(tile.x + thread, region.left, region.width));
  } else if (row < tile_height) {
    rows[row] = tap_of(box.y, in_region(tile.y + row, region.top, region.height));
  }
}

template <typename Pixels>
__device__ void region_pixel(const Pixels& pixels, const BoxSampling& box, std::int32_t y,
                             std::int32_t x, const Tap& row, const Tap& column,
                             const Normalisation& n, float* value) {
  if (box.turned != 0) {
    turned_pixel(pixels, box, y, x, n, value);
  } else if (box.blends != 0) {
    blend_pixel(pixels, row, column, n, value);
  } else {
    sum_pixel(pixels, row, column, n, value);
  }
}

template <typename Pixels>
__global__ void __launch_bounds__(kTileWidth* kThreadRows)
    preprocess_boxes(const __grid_constant__ Launch launch, const __grid_constant__ FewBoxes few) {
  __shared__ Tap columns[kTileWidth];
  __shared__ Tap rows[kMaxTileHeight];
  const auto index = static_cast<std::int32_t>(blockIdx.z);
  const BoxSampling box = launch.boxes != nullptr ? launch.boxes[index] : few.box[index];
  const Tile tile = this_tile(launch.tile_height);
  if (box.turned == 0) fill_taps(box, tile, launch.tile_height, columns, rows);
  __syncthreads();

  const auto column = static_cast<std::int32_t>(threadIdx.x);
  const std::int32_t x = tile.x + column;
  if (x >= launch.slots.width) return;
  const Pixels pixels = Pixels::of(launch.image, box.top, box.left);
  const Region& region = box.region;
  const std::int32_t region_x = x - region.left;
  const bool beside = region_x < 0 || region_x >= region.width;
  for (auto row = static_cast<std::int32_t>(threadIdx.y); row < launch.tile_height;
       row += kThreadRows) {
    const std::int32_t y = tile.y + row;
    if (y >= launch.slots.height) return;
    const std::int32_t region_y = y - region.top;
    float value[5];
    if (beside || region_y < 0 || region_y >= region.height) {
      pad_pixel(launch.normalisation, value);
    } else {
      region_pixel(pixels, box, region_y, region_x, rows[row], columns[column],
                   launch.normalisation, value);
    }
    append_pooled(launch.normalisation, value);
    store_pixel(launch.slots, index, y, x, value);
  }
}

std::int32_t tiles(std::int32_t outputs, std::int32_t per_tile) {
  return (outputs + per_tile - 1) / per_tile;
}

template <typename Pixels>
void launch_with(const Launch& launch, const FewBoxes& few, const cudaLaunchConfig_t& config) {
  check(cudaLaunchKernelEx(&config, preprocess_boxes<Pixels>, launch, few), "cudaLaunchKernelEx");
}

}  // namespace

void launch_preprocess(Launch launch, const FewBoxes& few, void* stream) {
  const std::int32_t across = tiles(launch.slots.width, kTileWidth);
  const std::int64_t low_tiles =
      std::int64_t{across} * tiles(launch.slots.height, kThreadRows) * launch.count;
  launch.tile_height = low_tiles < kManyTiles ? kThreadRows : kMaxTileHeight;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(across),
                        static_cast<unsigned>(tiles(launch.slots.height, launch.tile_height)),
                        static_cast<unsigned>(launch.count));
  config.blockDim = dim3(kTileWidth, kThreadRows, 1);
  config.stream = static_cast<cudaStream_t>(stream);
  if (!launch.image.plain()) {
    launch_with<ConvertedPixels>(launch, few, config);
  } else if (launch.image.grey()) {
    launch_with<GreyPixels>(launch, few, config);
  } else {
    launch_with<ColourPixels>(launch, few, config);
  }
}

}  // namespace algan::cuda
