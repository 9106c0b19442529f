#include "algan/error.h"
#include "bind.h"

namespace algan::bindings {

void bind_errors(py::module_&) {
  py::register_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const InputError& e) {
      const py::object type = py::module_::import("algan_stream.errors").attr("InputError");
      PyErr_SetString(type.ptr(), e.what());
    } catch (const DeviceError& e) {
      const py::object type = py::module_::import("algan_stream.errors").attr("EngineError");
      PyErr_SetString(type.ptr(), e.what());
    }
  });
}

}  // namespace algan::bindings
