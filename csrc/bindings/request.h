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

// A whole number from Python, NumPy's among them. Throws InputError for anything else, and for
// those beyond 64 bits.
std::int64_t whole_number(const py::object& object, const std::string& name,
                          const std::string& wanted);

// Where `out` and where the image and its mask lie. Throws InputError.
struct Places {
  Memory out, image;
};

Request read_request(const py::object& out, const py::object& image, const Spec& spec,
                     const py::object& boxes, const py::object& mask, const CallOptions& options,
                     const Places& places);

}  // namespace algan::bindings
