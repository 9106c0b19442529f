// Arrays as the core's views, without copies; throws InputError for what cannot be viewed.
#pragma once

#include <pybind11/numpy.h>

#include <cstddef>
#include <string>
#include <vector>

#include "algan/preprocess.h"

namespace py = pybind11;

namespace algan::bindings {

enum class Memory { kHost, kDevice };

// An array of the caller's in host memory: NumPy's own, or anything that offers __dlpack__ or
// __array_interface__. In device memory: see device_array.h. `wanted` completes "expected ...".
py::array as_array(const py::object& object, const std::string& name, const std::string& wanted,
                   Memory memory = Memory::kHost);

// "uint8 (480, 640, 3)".
std::string describe(const py::array& array);

template <typename T>
bool has_dtype(const py::array& array) {
  return array.dtype().equal(py::dtype::of<T>());
}

// float32 or float64, any strides: (N, 4) xyxy, or (N, 5) turned boxes; exactly one is filled.
struct Boxes {
  std::vector<Box> upright;
  std::vector<RotatedBox> turned;
  bool are_turned = false;

  std::size_t size() const { return are_turned ? turned.size() : upright.size(); }
};

// Checked and with their margin; None stands for the whole image.
Boxes read_boxes(const py::object& boxes, const ImageView& image, double margin);

// (M, C, height_px, width_px), or (M, height_px, width_px, C) for "nhwc"; float32, float16 or
// uint8, C order, writeable.
struct SlotsView {
  Slots slots;
  std::size_t count;
};

SlotsView view_slots(const py::object& out, const InputSpec& spec, const std::string& layout,
                     Memory memory);

}  // namespace algan::bindings
