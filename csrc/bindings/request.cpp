#include "request.h"

#include <cmath>
#include <utility>

#include "algan/error.h"

namespace algan::bindings {

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
