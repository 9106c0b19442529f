#include <pybind11/pybind11.h>

#include "bind.h"

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "Native core of algan-stream; use algan_stream.preprocess.";
  algan::bindings::bind_errors(m);
  algan::bindings::bind_preprocess(m);
  algan::bindings::bind_stream(m);
#if defined(ALGAN_HAS_CUDA)
  algan::bindings::bind_cuda(m);
  m.attr("has_cuda") = true;
#else
  m.attr("has_cuda") = false;
#endif
}
