/// @file
/// What announces one frame to a service: its checks, its pixels without gaps, its header; see
/// docs/protocol.md.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "algan/error.h"
#include "algan/image_view.h"
#include "algan/msgpack.h"

namespace algan {

struct FrameOptions {
  std::string part_id = {};                                      ///< comes back with the verdict
  std::optional<std::vector<std::array<double, 4>>> boxes = {};  ///< xyxy pixels; none: the frame
  std::optional<double> deadline_ms = {};                        ///< a later verdict is "unknown"
  std::int64_t captured_ns = 0;                                  ///< Unix time; 0: now
};

/// Where a frame's pixels stand in shared memory.
struct SlotAddress {
  std::int64_t ring;
  int slot;
  std::uint64_t generation;
};

namespace frame_message {

inline std::size_t row_bytes(const ImageView& image) {
  return static_cast<std::size_t>(image.width_px * image.pixel_bytes());
}

/// Bytes of the pixels without gaps.
///
/// @throws InputError  the wire does not take such a frame, or it has more than `most` bytes
inline std::size_t checked_bytes(const ImageView& image, std::size_t most) {
  constexpr std::int64_t kMostPx = 65'535;
  if (image.format != PixelFormat::kBgr8 && image.format != PixelFormat::kRgb8 &&
      image.format != PixelFormat::kGrey8) {
    throw InputError("image: expected kBgr8, kRgb8 or kGrey8");
  }
  if (image.height_px < 1 || image.width_px < 1 || image.height_px > kMostPx ||
      image.width_px > kMostPx) {
    throw InputError("image: expected 1 to 65535 px high and wide");
  }
  const std::size_t count = row_bytes(image) * static_cast<std::size_t>(image.height_px);
  if (count > most) {
    throw InputError("image: expected at most " + std::to_string(most) + " bytes");
  }
  return count;
}

inline void copy_rows(const ImageView& image, std::uint8_t* to) {
  const std::size_t row = row_bytes(image);
  if (image.row_stride == static_cast<std::ptrdiff_t>(row)) {
    std::memcpy(to, image.data, row * static_cast<std::size_t>(image.height_px));
    return;
  }
  for (std::int64_t y = 0; y < image.height_px; ++y, to += row) {
    std::memcpy(to, image.data + y * image.row_stride, row);
  }
}

inline void write_boxes(msgpack::Writer& out, const FrameOptions& more) {
  out.text("boxes");
  if (!more.boxes) return out.nil();
  out.array(more.boxes->size());
  for (const auto& box : *more.boxes) {
    out.array(box.size());
    for (const double corner : box) out.number(corner);
  }
}

inline const char* name_of(PixelFormat format) {
  if (format == PixelFormat::kGrey8) return "grey8";
  return format == PixelFormat::kRgb8 ? "rgb8" : "bgr8";
}

/// The message's first part.
///
/// @param in  where the pixels stand; null: they follow as the second part
inline std::string header(std::int64_t frame_id, const ImageView& image, const FrameOptions& more,
                          const SlotAddress* in) {
  msgpack::Writer out;
  out.map(in == nullptr ? 9 : 12);
  out.text("type");
  out.text(in == nullptr ? "frame" : "slot");
  out.text("frame_id");
  out.integer(frame_id);
  out.text("height_px");
  out.integer(image.height_px);
  out.text("width_px");
  out.integer(image.width_px);
  out.text("pixel_format");
  out.text(name_of(image.format));
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  out.text("captured_ns");
  out.integer(more.captured_ns != 0
                  ? more.captured_ns
                  : std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
  out.text("part_id");
  out.text(more.part_id);
  out.text("deadline_ms");
  if (more.deadline_ms) {
    out.number(*more.deadline_ms);
  } else {
    out.nil();
  }
  write_boxes(out, more);
  if (in != nullptr) {
    out.text("ring");
    out.integer(in->ring);
    out.text("slot");
    out.integer(in->slot);
    out.text("generation");
    out.natural(in->generation);
  }
  return out.bytes();
}

}  // namespace frame_message
}  // namespace algan
