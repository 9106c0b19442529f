#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "algan/error.h"
#include "algan/preprocess.h"
#include "bind.h"
#include "numpy_view.h"

namespace algan::bindings {
namespace {

InputSpec make_spec(std::int32_t height_px, std::int32_t width_px, bool pooled_channels,
                    const std::string& filter, const std::array<double, 3>& mean,
                    const std::array<double, 3>& std) {
  const InputSpec spec{height_px, width_px, pooled_channels, downscale(filter), mean, std};
  check_spec(spec);
  return spec;
}

std::size_t preprocess_into(const py::object& out, const py::object& image, const InputSpec& spec,
                            const std::string& format, const py::object& boxes,
                            py::ssize_t first_slot) {
  const ImageView view = view_image(image, pixel_format(format));
  const std::vector<Box> clipped = read_boxes(boxes, view);
  const Slots slots = view_slots(out, spec);
  const auto first = static_cast<std::size_t>(first_slot);
  if (first_slot < 0 || first > slots.count || clipped.size() > slots.count - first) {
    throw InputError("out: expected room for " + std::to_string(clipped.size()) +
                     " outputs from first_slot " + std::to_string(first_slot) + ", got " +
                     std::to_string(slots.count) + " slots");
  }
  {
    const py::gil_scoped_release unlocked;  // `out`, `image` and `boxes` are held by the caller
    preprocess(view, clipped, spec, slots.data + first * spec.slot_floats());
  }
  return clipped.size();
}

}  // namespace

void bind_preprocess(py::module_& m) {
  py::class_<InputSpec>(m, "Spec").def(py::init(&make_spec), py::arg("height_px"),
                                       py::arg("width_px"), py::arg("pooled_channels"),
                                       py::arg("downscale"), py::arg("mean"), py::arg("std"));
  m.def("preprocess_into", &preprocess_into, py::arg("out"), py::arg("image"), py::arg("spec"),
        py::arg("pixel_format"), py::arg("boxes"), py::arg("first_slot"));
  m.def("available_simd", &available_simd);
  m.def("active_simd", &active_simd);
  m.def("_force_simd", &force_simd, py::arg("name"));
}

}  // namespace algan::bindings
