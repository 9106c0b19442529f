/// @file
/// Errors of the core. The bindings map them onto algan_stream.errors.
#pragma once

#include <stdexcept>
#include <string>

namespace algan {

/// An image, a box, a buffer or a setting that the caller gave cannot be used. Nothing was written.
/// what() says what was expected, what came, and how to mend it.
class InputError : public std::invalid_argument {
 public:
  /// @param message  for the person at the caller's end, without a full stop
  explicit InputError(const std::string& message) : std::invalid_argument(message) {}
};

// A call of the CUDA runtime failed; the message begins with its name.
class DeviceError : public std::runtime_error {
 public:
  explicit DeviceError(const std::string& message) : std::runtime_error(message) {}
};

}  // namespace algan
