// One function for each category of bindings.
#pragma once

#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace algan::bindings {

void bind_errors(py::module_& m);
void bind_preprocess(py::module_& m);
void bind_stream(py::module_& m);
void bind_cuda(py::module_& m);  // only where ALGAN_HAS_CUDA is defined

}  // namespace algan::bindings
