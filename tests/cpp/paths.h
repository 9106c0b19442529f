// Every path that this machine can run, compared with the scalar one.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "algan/preprocess.h"
#include "check.h"
#include "cpu/workspace.h"

namespace paths {

using algan::Element;
using algan::ImageView;
using algan::InputSpec;
using algan::Layout;

// Largest difference. 16-bit weights and sums of the SIMD paths, see tests/test_preprocess.py, may
// tip a number over to the next byte, or to the next half: 2^-11 for numbers up to 1.
inline float tolerance(Element element) {
  constexpr float kFilters = 1.5e-4F;
  return element == Element::kUint8     ? 1.0F
         : element == Element::kFloat16 ? kFilters + 1.0F / 2048.0F
                                        : kFilters;
}

inline float half_value(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int mantissa = bits & 1023;
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), -24)
                              : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

inline float number_at(const std::uint8_t* memory, std::size_t i, Element element) {
  if (element == Element::kUint8) return static_cast<float>(memory[i]);
  if (element == Element::kFloat16) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, memory + i * sizeof(bits), sizeof(bits));
    return half_value(bits);
  }
  float value = 0.0F;
  std::memcpy(&value, memory + i * sizeof(value), sizeof(value));
  return value;
}

// Into memory that starts with a cache line and ends with the last slot.
template <typename AnyBox>
std::vector<float> run(const std::string& path, const ImageView& view,
                       const std::vector<AnyBox>& boxes, const InputSpec& spec, Element element,
                       Layout layout) {
  std::vector<float> numbers(boxes.size() * spec.slot_elements());
  algan::cpu::ScratchBuffer<std::uint8_t> memory;
  algan::Slots slots{nullptr, element, layout};
  std::uint8_t* out = memory.at_least(numbers.size() * slots.element_bytes());
  slots.data = out;
  algan::force_simd(path);
  CHECK(algan::active_simd() == path);
  algan::preprocess(view, boxes, spec, slots);
  algan::force_simd("");
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = number_at(out, i, element);
  return numbers;
}

inline bool all_close(const std::vector<float>& a, const std::vector<float>& b, float most) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!(std::fabs(a[i] - b[i]) <= most)) return false;  // so for NaN, too
  }
  return true;
}

template <typename AnyBox>
void check_agreement(const ImageView& view, const std::vector<AnyBox>& boxes, const InputSpec& spec,
                     Element element = Element::kFloat32, Layout layout = Layout::kNchw) {
  // All but the scalar path share their fixed point and so differ by the rounding of floats only.
  constexpr float kRounding = 2e-6F;
  const std::vector<float> want = run("scalar", view, boxes, spec, element, layout);
  std::vector<float> first;
  for (const std::string& path : algan::available_simd()) {
    if (path == "scalar") continue;
    const std::vector<float> got = run(path, view, boxes, spec, element, layout);
    if (first.empty()) first = got;
    const bool close = all_close(got, want, tolerance(element)) &&
                       (element != Element::kFloat32 || all_close(got, first, kRounding));
    CHECK(close);
    if (!close) std::fprintf(stderr, "  on path %s\n", path.c_str());
  }
}

inline void print() {
  std::printf("paths:");
  for (const std::string& path : algan::available_simd()) std::printf(" %s", path.c_str());
  std::printf("\n");
}

}  // namespace paths
