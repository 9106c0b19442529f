/// @file
/// Pixels to network input: crop, resize, RGB order, normalise, append channel maximum and mean.
///
///   in   an ImageView of any PixelFormat, any row stride, and boxes of it
///   out  N slots, each (C, height_px, width_px) or (height_px, width_px, C), C order;
///        C is 3 to 5; float32, float16 or uint8
///   channel 0, 1, 2  (value / 255 - mean) / std of red, green, blue; a grey image is all three
///   channel 3, 4     maximum and mean over channels 0 to 2, as asked for
///   uint8            value itself, rounded half up, for networks that normalise
///
/// Every output depends on its own image and box only: not on its slot, nor on other boxes.
/// No threads are started unless asked for; any number of threads may call at once. The filters are
/// in pixel_math.h, the colours in color_math.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "algan/image_view.h"

namespace algan {

/// The filter of an axis that shrinks; an axis that grows is always bilinear.
enum class Downscale {
  kArea,      ///< mean of the pixels under each output, by exact coverage: antialiased
  kBilinear,  ///< blend of the two nearest: aliases; for networks trained that way
};

/// How a crop of other proportions fills its slot.
enum class Fit {
  kStretch,    ///< it fills the slot
  kLetterbox,  ///< it keeps its proportions, centred; the rest of the slot is pad_level
};

/// Which planes follow red, green and blue.
enum class Pooled { kNone, kMax, kMean, kMaxMean };

/// Type of an output.
enum class Element {
  kFloat32,
  kFloat16,  ///< IEEE 754 binary16, rounded to nearest even
  kUint8,    ///< before normalisation, rounded half up
};

/// Order of a slot's axes: (C, height, width) or (height, width, C).
enum class Layout { kNchw, kNhwc };

/// What the network takes. The same spec, image and box give the same output on every call.
struct InputSpec {
  std::int32_t height_px;  ///< of a slot, 1 to 4096
  std::int32_t width_px;   ///< of a slot, 1 to 4096
  Pooled pooled;
  Downscale downscale;
  std::array<double, 3> mean;  ///< of red, green, blue; subtracted from value / 255
  std::array<double, 3> std;   ///< of red, green, blue; divides after that; above 0
  Fit fit = Fit::kStretch;
  double pad_level = 0.0;   ///< grey level, 0 to 255
  double box_margin = 0.0;  ///< `margin` for clip_boxes() and check_rotated(), 0 to 10

  /// Planes of a slot: 3, 4 or 5.
  std::size_t channels() const {
    return pooled == Pooled::kMaxMean ? 5 : pooled == Pooled::kNone ? 3 : 4;
  }
  /// Elements of a slot: channels() * height_px * width_px.
  std::size_t slot_elements() const {
    return channels() * static_cast<std::size_t>(height_px) * static_cast<std::size_t>(width_px);
  }
};

/// Where the outputs go: slots one after the other in memory of the caller's.
struct Slots {
  void* data;  ///< slots * slot_elements() * element_bytes() bytes, aligned to an element
  Element element = Element::kFloat32;
  Layout layout = Layout::kNchw;

  /// Bytes of an output: 4, 2 or 1.
  std::size_t element_bytes() const {
    return element == Element::kFloat32 ? 4 : element == Element::kFloat16 ? 2 : 1;
  }
};

/// In pixels, fractions allowed; pixel (0, 0) covers 0 to 1, so the maxima are exclusive edges.
struct Box {
  double x_min, y_min, x_max, y_max;
};

/// In pixels; the angle is clockwise as seen on the image, as in OpenCV's RotatedRect.
struct RotatedBox {
  double x_centre, y_centre, width, height, angle_degrees;
};

/// @throws InputError  unless the size, the planes and the white level suit the format
void check_image(const ImageView& image);

/// @throws InputError  unless every number is within the range that InputSpec states
void check_spec(const InputSpec& spec);

/// @throws InputError  if there is no memory, or if uint8 cannot hold what the spec asks for:
/// pooled
///                     planes of channels whose mean or std differ
void check_slots(const InputSpec& spec, const Slots& slots);

/// Boxes as preprocess() takes them: with their margin, and clipped to the image.
///
/// @param margin  added on every side, as a share of the box's width or height; 0 to 10
/// @return        as many boxes, in the same order
/// @throws InputError  that names the first box that is not finite, has no area, or lies beside the
///                     image even without its margin
std::vector<Box> clip_boxes(const ImageView& image, const std::vector<Box>& boxes,
                            double margin = 0.0);

/// Turned boxes as preprocess() takes them: with their margin; they may reach over the image's
/// edge.
///
/// @param margin  added on every side, as a share of the box's width or height; 0 to 10
/// @return        as many boxes, in the same order
/// @throws InputError  that names the first box that is not finite, has a side of 0 or less, whose
///                     centre lies outside the image, or that is with its margin more than
///                     16384 px from corner to corner
std::vector<RotatedBox> check_rotated(const ImageView& image, const std::vector<RotatedBox>& boxes,
                                      double margin = 0.0);

/// Writes one slot for each box, in their order. Checks nothing: what reaches it must have passed
/// the functions above.
///
/// @param image  from check_image()
/// @param boxes  from clip_boxes() for the same image
/// @param spec   from check_spec(); its box_margin is already in the boxes
/// @param slots  from check_slots(), with room for boxes.size() slots
/// @param threads  boxes are shared out among so many threads at most, the caller's among them;
/// with
///                 1 none is started
/// @throws std::bad_alloc  if there is no room for the thread's row buffers, which the next call
///                         uses again
/// @throws InputError      on the first use in the process, for an ALGAN_SIMD that cannot be had
void preprocess(const ImageView& image, const std::vector<Box>& boxes, const InputSpec& spec,
                const Slots& slots, int threads = 1);

/// The same for boxes from check_rotated(); pixels beyond the image's edge repeat its last ones.
void preprocess(const ImageView& image, const std::vector<RotatedBox>& boxes, const InputSpec& spec,
                const Slots& slots, int threads = 1);

/// Names of the paths that this machine can run, fastest first: of "avx512", "avx2", "scalar".
std::vector<std::string> available_simd();

/// Name of the path in use. At first use the variable ALGAN_SIMD chooses it, else the fastest is.
///
/// @throws InputError  if ALGAN_SIMD names no path, or one that this machine cannot run
std::string active_simd();

/// For tests: uses a path from now on, in all threads.
///
/// @param name  one of available_simd(), or "" for the choice made at first use
/// @throws InputError  for any other name
void force_simd(const std::string& name);

/// Whether large outputs bypass the caches. The numbers are the same.
enum class Streaming { kWherePays, kAlways, kNever };

/// For tests and benchmarks: how outputs are written from now on, in all threads.
void force_streaming(Streaming how);

}  // namespace algan
