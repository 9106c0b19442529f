#include "cpu_features.h"

#if defined(ALGAN_X86)
#include <cpuid.h>

#include <cstdint>

namespace algan::cpu {
namespace {

constexpr std::uint32_t kLeaf1EcxSse3 = 1U << 0;
constexpr std::uint32_t kLeaf1EcxSsse3 = 1U << 9;
constexpr std::uint32_t kLeaf1EcxFma = 1U << 12;
constexpr std::uint32_t kLeaf1EcxSse41 = 1U << 19;
constexpr std::uint32_t kLeaf1EcxOsxsave = 1U << 27;
constexpr std::uint32_t kLeaf1EcxAvx = 1U << 28;
constexpr std::uint32_t kLeaf1EcxF16c = 1U << 29;
constexpr std::uint32_t kLeaf7EbxAvx2 = 1U << 5;
constexpr std::uint32_t kLeaf7EbxAvx512F = 1U << 16;
constexpr std::uint32_t kLeaf7EbxAvx512Dq = 1U << 17;
constexpr std::uint32_t kLeaf7EbxAvx512Bw = 1U << 30;
constexpr std::uint32_t kLeaf7EbxAvx512Vl = 1U << 31;
constexpr std::uint32_t kXcr0Ymm = 0x06;  // SSE and AVX state
constexpr std::uint32_t kXcr0Zmm = 0xE6;  // and opmask, upper halves, upper sixteen

struct Features {
  std::uint32_t leaf1_ecx = 0, leaf7_ebx = 0, xcr0 = 0;
};

Features read_features() {
  Features f;
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return f;
  f.leaf1_ecx = ecx;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0) f.leaf7_ebx = ebx;
  if ((f.leaf1_ecx & kLeaf1EcxOsxsave) != 0) {
    std::uint32_t high = 0;
    __asm__ volatile("xgetbv" : "=a"(f.xcr0), "=d"(high) : "c"(0));
  }
  return f;
}

const Features& features() {
  static const Features found = read_features();
  return found;
}

bool all(std::uint32_t bits, std::uint32_t wanted) { return (bits & wanted) == wanted; }

}  // namespace

// Every operating system for x86-64 saves the registers of SSE.
bool has_sse4() {
  return all(features().leaf1_ecx, kLeaf1EcxSse3 | kLeaf1EcxSsse3 | kLeaf1EcxSse41);
}

bool has_avx2() {
  const Features& f = features();
  return all(f.leaf1_ecx, kLeaf1EcxFma | kLeaf1EcxOsxsave | kLeaf1EcxAvx | kLeaf1EcxF16c) &&
         all(f.leaf7_ebx, kLeaf7EbxAvx2) && all(f.xcr0, kXcr0Ymm);
}

bool has_avx512() {
  const Features& f = features();
  return has_avx2() && all(f.xcr0, kXcr0Zmm) &&
         all(f.leaf7_ebx,
             kLeaf7EbxAvx512F | kLeaf7EbxAvx512Dq | kLeaf7EbxAvx512Bw | kLeaf7EbxAvx512Vl);
}

bool made_by_intel() {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(0, &eax, &ebx, &ecx, &edx) == 0) return false;
  // "GenuineIntel", four letters in each register, the first in the lowest byte.
  return ebx == 0x756E6547U && edx == 0x49656E69U && ecx == 0x6C65746EU;
}

}  // namespace algan::cpu
#endif
