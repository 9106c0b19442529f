#include "request.h"

#include <cmath>
#include <utility>

#include "algan/error.h"

namespace algan::bindings {

std::int64_t whole_number(const py::object& object, const std::string& name,
                          const std::string& wanted) {
  const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(object.ptr()));
  int overflow = 0;
  const long long value =
      index ? PyLong_AsLongLongAndOverflow(index.ptr(), &overflow) : static_cast<long long>(-1);
  if (index && overflow == 0) return value;
  PyErr_Clear();
  throw InputError(name + ": expected " + wanted + ", got " + py::repr(object).cast<std::string>() +
                   "; a whole number is needed");
}

Request read_request(const py::object& out, const py::object& image, const Spec& spec,
                     const py::object& boxes, const py::object& mask, const CallOptions& options,
                     const Places& places) {
  const auto masked = static_cast<std::uint8_t>(std::lround(spec.input.pad_level));
  const ImageOptions as{pixel_format(options.pixel_format), yuv_range(options.yuv),
                        spec.white_level, masked};
  ImageArg arg = view_image(image, as, mask, places.image);
  Boxes found = read_boxes(boxes, arg.view, spec.input.box_margin);
  SlotsView view = view_slots(out, spec.input, options.layout, places.out);
  const auto first = static_cast<std::size_t>(options.first_slot);
  if (options.first_slot < 0 || first > view.count || found.size() > view.count - first) {
    throw InputError("out: expected room for " + std::to_string(found.size()) +
                     " outputs from first_slot " + std::to_string(options.first_slot) + ", got " +
                     std::to_string(view.count) + " slots");
  }
  view.slots.data = static_cast<std::uint8_t*>(view.slots.data) +
                    first * spec.input.slot_elements() * view.slots.element_bytes();
  return Request{std::move(arg), std::move(found), view.slots};
}

}  // namespace algan::bindings
