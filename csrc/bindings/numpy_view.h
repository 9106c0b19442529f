// NumPy arrays as the core's views, without copies; throws InputError for what cannot be viewed.
#pragma once

#include <pybind11/numpy.h>

#include <cstddef>
#include <string>
#include <vector>

#include "algan/image_view.h"
#include "algan/preprocess.h"

namespace py = pybind11;

namespace algan::bindings {

struct Slots {
  float* data;
  std::size_t count;
};

PixelFormat pixel_format(const std::string& name);
Downscale downscale(const std::string& name);

// uint8 (H, W, 3) or (H, W); the pixels of a row must be neighbours.
ImageView view_image(const py::object& image, PixelFormat format);

// float32 or float64 (N, 4), any strides; None stands for the whole image.
std::vector<Box> read_boxes(const py::object& boxes, const ImageView& image);

// float32 (M, C, height_px, width_px), C order, writeable.
Slots view_slots(const py::object& out, const InputSpec& spec);

}  // namespace algan::bindings
