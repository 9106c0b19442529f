#include <pybind11/numpy.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "algan/error.h"
#include "bind.h"

namespace algan::bindings {
namespace {

using Bytes = py::array_t<std::uint8_t>;
using Runs = py::array_t<std::int64_t, py::array::c_style>;

std::uint64_t read_bytes(const std::uint8_t* from, std::int64_t count) {
  std::uint64_t sum[4] = {};
  std::int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    std::uint64_t words[4];
    std::memcpy(words, from + i, sizeof(words));
    for (int k = 0; k < 4; ++k) sum[k] += words[k];
  }
  for (; i < count; ++i) sum[0] += from[i];
  return sum[0] + sum[1] + sum[2] + sum[3];
}

// The floor of `bench preprocess`: reads bytes [begin, end) of each (row, begin, end) once, writes
// `out` once, and computes nothing worth mentioning.
void stream(const Bytes& image, const Runs& runs,
            py::array_t<std::uint8_t, py::array::c_style> out) {
  if (image.ndim() != 2 || (image.shape(1) > 1 && image.strides(1) != 1) || runs.ndim() != 2 ||
      runs.shape(1) != 3) {
    throw InputError("_stream: expected rows of bytes and (N, 3) runs");
  }
  const auto run = runs.unchecked<2>();
  for (py::ssize_t i = 0; i < run.shape(0); ++i) {
    const bool inside = run(i, 0) >= 0 && run(i, 0) < image.shape(0) && run(i, 1) >= 0 &&
                        run(i, 1) <= run(i, 2) && run(i, 2) <= image.shape(1);
    if (!inside) throw InputError("_stream: run " + std::to_string(i) + " leaves the image");
  }
  std::uint64_t sum = 0;
  for (py::ssize_t i = 0; i < run.shape(0); ++i) {
    const std::uint8_t* row = image.data() + run(i, 0) * image.strides(0);
    sum += read_bytes(row + run(i, 1), run(i, 2) - run(i, 1));
  }
  std::memset(out.mutable_data(), static_cast<int>(sum & 0xFF),
              static_cast<std::size_t>(out.nbytes()));
}

}  // namespace

void bind_stream(py::module_& m) {
  m.def("_stream", &stream, py::arg("image").noconvert(), py::arg("runs"),
        py::arg("out").noconvert());
}

}  // namespace algan::bindings
