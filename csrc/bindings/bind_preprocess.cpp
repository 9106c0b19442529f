#include <pybind11/stl.h>

#include <array>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "algan/error.h"
#include "algan/preprocess.h"
#include "bind.h"
#include "image_arg.h"
#include "numpy_view.h"

namespace algan::bindings {
namespace {

// What a Spec of Python holds: the core's, and what reading an image needs.
struct Spec {
  InputSpec input;
  std::int32_t white_level;
};

template <typename Value, std::size_t kCount>
Value named(const std::string& field, const std::string& name,
            const std::pair<const char*, Value> (&values)[kCount]) {
  std::string names;
  for (const auto& [known, value] : values) {
    if (name == known) return value;
    names += (names.empty() ? "" : ", ") + std::string(known);
  }
  throw InputError("spec." + field + ": expected one of " + names + ", got \"" + name + "\"");
}

constexpr std::pair<const char*, Pooled> kPooled[] = {{"none", Pooled::kNone},
                                                      {"max", Pooled::kMax},
                                                      {"mean", Pooled::kMean},
                                                      {"max_mean", Pooled::kMaxMean}};
constexpr std::pair<const char*, Downscale> kDownscale[] = {{"area", Downscale::kArea},
                                                            {"bilinear", Downscale::kBilinear}};
constexpr std::pair<const char*, Fit> kFit[] = {{"stretch", Fit::kStretch},
                                                {"letterbox", Fit::kLetterbox}};

Spec make_spec(std::int32_t height_px, std::int32_t width_px, const std::string& pooled,
               const std::string& filter, const std::array<double, 3>& mean,
               const std::array<double, 3>& std, const std::string& fit, double pad_level,
               double box_margin, std::int32_t white_level) {
  const InputSpec spec{
      height_px, width_px, named("pooled", pooled, kPooled), named("downscale", filter, kDownscale),
      mean,      std,      named("fit", fit, kFit),          pad_level,
      box_margin};
  check_spec(spec);
  return Spec{spec, white_level};
}

std::size_t preprocess_into(const py::object& out, const py::object& image, const Spec& spec,
                            const std::string& format, const py::object& boxes,
                            py::ssize_t first_slot, const std::string& layout,
                            const py::object& mask, const std::string& yuv) {
  const auto masked = static_cast<std::uint8_t>(std::lround(spec.input.pad_level));
  const ImageArg arg = view_image(
      image, ImageOptions{pixel_format(format), yuv_range(yuv), spec.white_level, masked}, mask);
  const Boxes found = read_boxes(boxes, arg.view, spec.input.box_margin);
  SlotsView view = view_slots(out, spec.input, layout);
  const auto first = static_cast<std::size_t>(first_slot);
  if (first_slot < 0 || first > view.count || found.size() > view.count - first) {
    throw InputError("out: expected room for " + std::to_string(found.size()) +
                     " outputs from first_slot " + std::to_string(first_slot) + ", got " +
                     std::to_string(view.count) + " slots");
  }
  view.slots.data = static_cast<std::uint8_t*>(view.slots.data) +
                    first * spec.input.slot_elements() * view.slots.element_bytes();
  {
    const py::gil_scoped_release unlocked;  // `out`, `image` and `mask` are held by the caller
    found.are_turned ? preprocess(arg.view, found.turned, spec.input, view.slots)
                     : preprocess(arg.view, found.upright, spec.input, view.slots);
  }
  return found.size();
}

}  // namespace

void bind_preprocess(py::module_& m) {
  py::class_<Spec>(m, "Spec").def(
      py::init(&make_spec), py::kw_only(), py::arg("height_px"), py::arg("width_px"),
      py::arg("pooled"), py::arg("downscale"), py::arg("mean"), py::arg("std"), py::arg("fit"),
      py::arg("pad_level"), py::arg("box_margin"), py::arg("white_level"));
  m.def("preprocess_into", &preprocess_into, py::arg("out"), py::arg("image"), py::arg("spec"),
        py::kw_only(), py::arg("pixel_format"), py::arg("boxes"), py::arg("first_slot"),
        py::arg("layout"), py::arg("mask"), py::arg("yuv"));
  m.def("available_simd", &available_simd);
  m.def("active_simd", &active_simd);
  m.def("_force_simd", &force_simd, py::arg("name"));
}

}  // namespace algan::bindings
