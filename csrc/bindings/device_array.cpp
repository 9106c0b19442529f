#include "device_array.h"

#include <cstdint>
#include <exception>
#include <vector>

#include "algan/error.h"

namespace algan::bindings {
namespace {

constexpr const char* kInterface = "__cuda_array_interface__";

std::vector<py::ssize_t> numbers(const py::handle& tuple) {
  std::vector<py::ssize_t> values;
  for (const py::handle& item : tuple.cast<py::tuple>()) {
    values.push_back(py::int_(py::reinterpret_borrow<py::object>(item)).cast<py::ssize_t>());
  }
  return values;
}

py::array array_of(const py::dict& interface, const py::object& owner) {
  const py::dtype dtype = py::dtype::from_args(interface["typestr"]);
  const std::vector<py::ssize_t> shape = numbers(interface["shape"]);
  const bool has_strides =
      interface.contains("strides") && !py::object(interface["strides"]).is_none();
  std::vector<py::ssize_t> strides(shape.size());
  if (has_strides) {
    strides = numbers(interface["strides"]);
  } else {
    py::ssize_t bytes = dtype.itemsize();
    for (std::size_t i = shape.size(); i-- > 0; bytes *= shape[i]) strides[i] = bytes;
  }
  const auto data = interface["data"].cast<py::tuple>();
  const auto address = py::int_(py::object(data[0])).cast<std::uintptr_t>();
  bool empty = false;
  for (const py::ssize_t side : shape) empty = empty || side == 0;
  if (address == 0 && !empty) throw py::value_error("its address is 0");
  // With an owner and an address NumPy copies nothing and allocates nothing.
  py::array array(dtype, shape, strides, reinterpret_cast<const void*>(address), owner);
  if (py::bool_(py::object(data[1]))) array.attr("setflags")(py::arg("write") = false);
  return array;
}

}  // namespace

bool is_device_array(const py::object& object) { return py::hasattr(object, kInterface); }

py::array device_array(const py::object& object, const std::string& name,
                       const std::string& wanted) {
  const std::string type = py::str(py::type::of(object).attr("__name__")).cast<std::string>();
  if (!is_device_array(object)) {
    throw InputError(name + ": expected " + wanted + " in device memory, got a " + type +
                     " without __cuda_array_interface__; pass a torch or CuPy array on the device, "
                     "or a DeviceArray(pointer, shape, dtype)");
  }
  try {
    return array_of(object.attr(kInterface).cast<py::dict>(), object);
  } catch (const std::exception& error) {
    throw InputError(name + ": expected " + wanted + ", got a " + type +
                     " whose __cuda_array_interface__ cannot be read: " + error.what());
  }
}

}  // namespace algan::bindings
