// The arguments of preprocess_into, checked: the same for the processor and for CUDA.
#pragma once

#include <string>

#include "image_arg.h"
#include "numpy_view.h"

namespace algan::bindings {

// What a Spec of Python holds: the core's, and what reading an image needs.
struct Spec {
  InputSpec input;
  std::int32_t white_level;
};

struct CallOptions {
  std::string pixel_format;
  py::ssize_t first_slot;
  std::string layout;
  std::string yuv;
};

struct Request {
  ImageArg image;
  Boxes boxes;
  Slots slots;  // from first_slot on
};

// Where `out` and where the image and its mask lie. Throws InputError.
struct Places {
  Memory out, image;
};

Request read_request(const py::object& out, const py::object& image, const Spec& spec,
                     const py::object& boxes, const py::object& mask, const CallOptions& options,
                     const Places& places);

}  // namespace algan::bindings
