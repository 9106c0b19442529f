#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>
#include <utility>

#include "algan/error.h"
#include "algan/preprocess.h"
#include "bind.h"
#include "request.h"

namespace algan::bindings {
namespace {

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

constexpr int kMaxThreads = 256;

std::size_t preprocess_into(const py::object& out, const py::object& image, const Spec& spec,
                            const std::string& format, const py::object& boxes,
                            const py::object& first_slot, const std::string& layout,
                            const py::object& mask, const std::string& yuv,
                            const py::object& wanted_threads) {
  const std::int64_t first = whole_number(first_slot, "first_slot", "the number of a slot");
  const std::string range = "1 to " + std::to_string(kMaxThreads);
  const std::int64_t given = whole_number(wanted_threads, "threads", range);
  if (given < 1 || given > kMaxThreads) {
    throw InputError("threads: expected " + range + ", got " + std::to_string(given));
  }
  const int threads = static_cast<int>(given);
  const Request request =
      read_request(out, image, spec, boxes, mask, CallOptions{format, first, layout, yuv},
                   Places{Memory::kHost, Memory::kHost});
  const Boxes& found = request.boxes;
  const ImageView& view = request.image.view;
  {
    const py::gil_scoped_release unlocked;  // `out`, `image` and `mask` are held by the caller
    found.are_turned ? preprocess(view, found.turned, spec.input, request.slots, threads)
                     : preprocess(view, found.upright, spec.input, request.slots, threads);
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
        py::arg("layout"), py::arg("mask"), py::arg("yuv"), py::arg("threads"));
  m.def("available_simd", &available_simd);
  m.def("active_simd", &active_simd);
  m.def("_force_simd", &force_simd, py::arg("name"));
  m.def(
      "_force_streaming",
      [](std::optional<bool> always) {
        force_streaming(!always   ? Streaming::kWherePays
                        : *always ? Streaming::kAlways
                                  : Streaming::kNever);
      },
      py::arg("always"));
}

}  // namespace algan::bindings
