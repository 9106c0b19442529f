// Arrays in device memory, as torch, CuPy and algan_stream.preprocess_cuda.DeviceArray offer them.
#pragma once

#include <pybind11/numpy.h>

#include <string>

namespace py = pybind11;

namespace algan::bindings {

bool is_device_array(const py::object& object);

// A NumPy array whose dtype, shape, strides and address are the device array's, so that all checks
// of host arrays serve here too. Its elements must not be touched. `wanted` completes "expected
// ...".
py::array device_array(const py::object& object, const std::string& name,
                       const std::string& wanted);

}  // namespace algan::bindings
