#include "dispatch.h"

#include <atomic>
#include <cstdlib>

#include "algan/error.h"
#include "algan/preprocess.h"
#include "cpu_features.h"

namespace algan {
namespace cpu {
namespace {

bool always() { return true; }

constexpr Path kPaths[] = {
// fastest first
#if defined(ALGAN_X86)
    {"avx512", has_avx512, run_box_avx512},
    {"avx2", has_avx2, run_box_avx2},
    {"sse4", has_sse4, run_box_sse4},
#elif defined(ALGAN_NEON)
    {"neon", always, run_box_neon},  // part of every aarch64
#endif
    {"scalar", always, run_box_scalar},
};

std::atomic<const Path*> chosen{nullptr};

// An output this large is not read back from the second-level cache.
constexpr std::size_t kStreamBytes = std::size_t{4} << 20;

std::atomic<Streaming> streaming{Streaming::kWherePays};

bool streams_well() {
#if defined(ALGAN_X86)
  static const bool intel = made_by_intel();
  return intel;
#else
  return false;  // no path of another processor knows streaming stores
#endif
}

std::string names_here() {
  std::string names;
  for (const Path& path : kPaths) {
    if (path.runs_here()) names += (names.empty() ? "" : ", ") + std::string(path.name);
  }
  return names;
}

const Path& find_path(const std::string& name, const std::string& asked_by) {
  for (const Path& path : kPaths) {
    if (name != path.name) continue;
    if (path.runs_here()) return path;
    throw InputError(asked_by + ": this processor cannot run \"" + name + "\"; it can run " +
                     names_here());
  }
  throw InputError(asked_by + ": expected one of " + names_here() + ", got \"" + name + "\"");
}

const Path& default_path() {
  // Read once per process before any choice; nothing here writes the environment.
  const char* wanted = std::getenv("ALGAN_SIMD");  // NOLINT(concurrency-mt-unsafe)
  if (wanted != nullptr && *wanted != '\0') return find_path(wanted, "ALGAN_SIMD");
  for (const Path& path : kPaths) {
    if (path.runs_here()) return path;
  }
  return kPaths[sizeof(kPaths) / sizeof(kPaths[0]) - 1];
}

}  // namespace

const Path& active_path() {
  const Path* path = chosen.load(std::memory_order_acquire);
  if (path == nullptr) {
    path = &default_path();
    chosen.store(path, std::memory_order_release);
  }
  return *path;
}

bool streaming_pays(std::size_t bytes) {
  const Streaming how = streaming.load(std::memory_order_acquire);
  if (how != Streaming::kWherePays) return how == Streaming::kAlways;
  return bytes >= kStreamBytes && streams_well();
}

}  // namespace cpu

std::vector<std::string> available_simd() {
  std::vector<std::string> names;
  for (const cpu::Path& path : cpu::kPaths) {
    if (path.runs_here()) names.emplace_back(path.name);
  }
  return names;
}

std::string active_simd() { return cpu::active_path().name; }

void force_simd(const std::string& name) {
  const cpu::Path* path = name.empty() ? nullptr : &cpu::find_path(name, "simd");
  cpu::chosen.store(path, std::memory_order_release);
}

void force_streaming(Streaming how) { cpu::streaming.store(how, std::memory_order_release); }

}  // namespace algan
