// Images of every format as the core's view.
#pragma once

#include <pybind11/numpy.h>

#include <string>
#include <vector>

#include "algan/image_view.h"
#include "numpy_view.h"

namespace py = pybind11;

namespace algan::bindings {

// How the pixels are to be read.
struct ImageOptions {
  PixelFormat format;
  YuvRange yuv;
  std::int32_t white_level;
  std::uint8_t masked;  // grey level of masked pixels
};

PixelFormat pixel_format(const std::string& name);
YuvRange yuv_range(const std::string& name);

// The view, and what keeps its memory alive.
struct ImageArg {
  ImageView view;
  std::vector<py::array> owners;
  Memory memory = Memory::kHost;
};

// One array, or for nv12, nv21 and i420 also a tuple of their planes; `mask` is None or uint8 or
// bool (H, W). Throws InputError unless pixels of a row are neighbours and the size fits.
// Image and mask both lie in `memory`.
ImageArg view_image(const py::object& image, const ImageOptions& options, const py::object& mask,
                    Memory memory);

}  // namespace algan::bindings
