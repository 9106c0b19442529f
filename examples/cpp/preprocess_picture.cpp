// Turns a picture into network input and prints what came out: the whole frame and two boxes of
// it, each as 5 x 256 x 256 float32 (red, green, blue, their maximum, their mean).
//
//   preprocess_picture [picture.ppm | picture.pgm]      without a picture it draws one
#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <ios>
#include <stdexcept>
#include <string>
#include <vector>

#include <algan/error.h>
#include <algan/preprocess.h>

namespace {

constexpr std::int64_t kMaxSidePx = 1 << 15;

struct Picture {
  std::vector<std::uint8_t> pixels;
  std::int64_t height_px, width_px;
  bool grey;

  algan::ImageView view() const {
    return {pixels.data(), height_px, width_px, grey ? width_px : 3 * width_px,
            grey ? algan::PixelFormat::kGrey8 : algan::PixelFormat::kRgb8};
  }
};

// A number of the header, 1 to `limit`; comments run from # to the end of their line.
std::int64_t header_number(std::istream& file, std::int64_t limit) {
  int c = file.get();
  while (c == '#' || std::isspace(c) != 0) {
    if (c == '#') {
      std::string comment;
      std::getline(file, comment);
    }
    c = file.get();
  }
  std::int64_t number = 0;
  for (; c >= '0' && c <= '9' && number <= limit; c = file.get()) number = 10 * number + (c - '0');
  if (std::isspace(c) == 0 || number < 1 || number > limit) {
    throw std::runtime_error("expected a number of 1 to " + std::to_string(limit) +
                             " in the header");
  }
  return number;  // the one blank that ends a number has been read
}

Picture read_picture(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot be opened");
  char magic[2] = {};
  file.read(magic, sizeof(magic));
  if (magic[0] != 'P' || (magic[1] != '5' && magic[1] != '6')) {
    throw std::runtime_error("expected a binary PGM (P5) or PPM (P6)");
  }
  Picture picture{};
  picture.grey = magic[1] == '5';
  picture.width_px = header_number(file, kMaxSidePx);
  picture.height_px = header_number(file, kMaxSidePx);
  if (header_number(file, 65535) != 255) throw std::runtime_error("expected 8 bits, maximum 255");
  const std::int64_t bytes = picture.height_px * picture.width_px * (picture.grey ? 1 : 3);
  picture.pixels.resize(static_cast<std::size_t>(bytes));
  file.read(reinterpret_cast<char*>(picture.pixels.data()), bytes);
  if (file.gcount() != bytes) {
    throw std::runtime_error("expected " + std::to_string(bytes) + " bytes of pixels, got " +
                             std::to_string(file.gcount()));
  }
  return picture;
}

// Red grows to the right, green downwards, and blue is a chessboard.
Picture draw_picture() {
  Picture picture{{}, 480, 640, false};
  for (std::int64_t y = 0; y < picture.height_px; ++y) {
    for (std::int64_t x = 0; x < picture.width_px; ++x) {
      picture.pixels.push_back(static_cast<std::uint8_t>(255 * x / (picture.width_px - 1)));
      picture.pixels.push_back(static_cast<std::uint8_t>(255 * y / (picture.height_px - 1)));
      picture.pixels.push_back((x / 32 + y / 32) % 2 == 0 ? 255 : 0);
    }
  }
  return picture;
}

void print_channel(const char* name, const float* plane, std::size_t count) {
  double sum = 0.0;
  for (std::size_t i = 0; i < count; ++i) sum += static_cast<double>(plane[i]);
  const auto extremes = std::minmax_element(plane, plane + count);
  std::printf("  %-8s min %7.3f  max %7.3f  mean %7.3f\n", name,
              static_cast<double>(*extremes.first), static_cast<double>(*extremes.second),
              sum / static_cast<double>(count));
}

void run(const Picture& picture) {
  algan::InputSpec spec{};
  spec.height_px = 256;
  spec.width_px = 256;
  spec.pooled = algan::Pooled::kMaxMean;
  spec.downscale = algan::Downscale::kArea;
  spec.mean = {0.5, 0.5, 0.5};
  spec.std = {0.5, 0.5, 0.5};

  const algan::ImageView image = picture.view();
  const auto width = static_cast<double>(picture.width_px);
  const auto height = static_cast<double>(picture.height_px);
  algan::check_image(image);
  algan::check_spec(spec);
  const std::vector<algan::Box> boxes =
      algan::clip_boxes(image, {{0.0, 0.0, width, height},
                                {0.0, 0.0, width / 2.0, height / 2.0},
                                {width / 4.0, height / 4.0, width, height}});

  std::vector<float> out(boxes.size() * spec.slot_elements());
  const algan::Slots slots{out.data()};
  algan::check_slots(spec, slots);
  algan::preprocess(image, boxes, spec, slots);

  std::printf("path %s\nshape %zu x %zu x %d x %d float32\n", algan::active_simd().c_str(),
              boxes.size(), spec.channels(), spec.height_px, spec.width_px);
  const std::size_t plane = spec.slot_elements() / spec.channels();
  const char* const names[] = {"red", "green", "blue", "maximum", "mean"};
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    const algan::Box& box = boxes[i];
    std::printf("box %.1f, %.1f to %.1f, %.1f\n", box.x_min, box.y_min, box.x_max, box.y_max);
    for (std::size_t c = 0; c < spec.channels(); ++c) {
      print_channel(names[c], out.data() + i * spec.slot_elements() + c * plane, plane);
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 2) {
    std::fprintf(stderr, "usage: %s [picture.ppm | picture.pgm]\n", arguments[0]);
    return 1;
  }
  try {
    run(count == 2 ? read_picture(arguments[1]) : draw_picture());
  } catch (const algan::InputError& error) {  // an image, box or spec that cannot be used
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s: %s\n", count == 2 ? arguments[1] : "picture", error.what());
    return 1;
  }
  return 0;
}
