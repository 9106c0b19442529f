#include <mutex>

#include "algan/error.h"
#include "bind.h"
#include "cuda/preprocess.h"
#include "device_array.h"
#include "request.h"

namespace algan::bindings {
namespace {

// One at a time uses the memory; uploading and what reads the upload belong together.
class Locked {
 public:
  void reserve(std::size_t image_bytes, std::size_t boxes) {
    const std::lock_guard<std::mutex> alone(mutex_);
    preprocessor_.reserve(image_bytes, boxes);
  }

  void run(const Request& request, const InputSpec& spec, cuda::StreamHandle stream) {
    if (request.boxes.size() == 0) return;
    const std::lock_guard<std::mutex> alone(mutex_);
    cuda::check_device_memory(request.slots.data, "out");
    ImageView view = request.image.view;
    if (request.image.memory == Memory::kHost) {
      view = preprocessor_.upload(view, stream);
    } else {
      cuda::check_device_memory(view.data, "image");
      if (view.chroma != nullptr) cuda::check_device_memory(view.chroma, "image");
      if (view.chroma_v != nullptr) cuda::check_device_memory(view.chroma_v, "image");
      if (view.mask != nullptr) cuda::check_device_memory(view.mask, "mask");
    }
    request.boxes.are_turned
        ? preprocessor_.run(view, request.boxes.turned, spec, request.slots, stream)
        : preprocessor_.run(view, request.boxes.upright, spec, request.slots, stream);
  }

 private:
  std::mutex mutex_;
  cuda::Preprocessor preprocessor_;
};

Memory memory_of(const py::object& image) {
  const bool planes = py::isinstance<py::tuple>(image) && py::len(image) > 0;
  const py::object first = planes ? py::reinterpret_borrow<py::tuple>(image)[0] : image;
  return is_device_array(first) ? Memory::kDevice : Memory::kHost;
}

Request cuda_request(const py::object& out, const py::object& image, const Spec& spec,
                     const std::string& format, const py::object& boxes, py::ssize_t first_slot,
                     const std::string& layout, const py::object& mask, const std::string& yuv) {
  return read_request(out, image, spec, boxes, mask, CallOptions{format, first_slot, layout, yuv},
                      Places{Memory::kDevice, memory_of(image)});
}

std::size_t preprocess_into(Locked& self, const py::object& out, const py::object& image,
                            const Spec& spec, const std::string& format, const py::object& boxes,
                            py::ssize_t first_slot, const std::string& layout,
                            const py::object& mask, const std::string& yuv, std::uintptr_t stream) {
  const Request request =
      cuda_request(out, image, spec, format, boxes, first_slot, layout, mask, yuv);
  {
    // Before the lock, which another thread may hold while it waits for the interpreter.
    const py::gil_scoped_release unlocked;
    self.run(request, spec.input, reinterpret_cast<cuda::StreamHandle>(stream));
  }
  return request.boxes.size();
}

// For tests on machines without a device: what preprocess_into checks before it needs one.
std::size_t check_request(const py::object& out, const py::object& image, const Spec& spec,
                          const std::string& format, const py::object& boxes,
                          py::ssize_t first_slot, const std::string& layout, const py::object& mask,
                          const std::string& yuv) {
  return cuda_request(out, image, spec, format, boxes, first_slot, layout, mask, yuv).boxes.size();
}

}  // namespace

void bind_cuda(py::module_& m) {
  py::class_<Locked>(m, "CudaPreprocessor")
      .def(py::init<>())
      .def("reserve", &Locked::reserve, py::call_guard<py::gil_scoped_release>(), py::kw_only(),
           py::arg("image_bytes"), py::arg("boxes"))
      .def("preprocess_into", &preprocess_into, py::arg("out"), py::arg("image"), py::arg("spec"),
           py::kw_only(), py::arg("pixel_format"), py::arg("boxes"), py::arg("first_slot"),
           py::arg("layout"), py::arg("mask"), py::arg("yuv"), py::arg("stream"));
  m.def("_check_cuda_request", &check_request, py::arg("out"), py::arg("image"), py::arg("spec"),
        py::kw_only(), py::arg("pixel_format"), py::arg("boxes"), py::arg("first_slot"),
        py::arg("layout"), py::arg("mask"), py::arg("yuv"));
}

}  // namespace algan::bindings
