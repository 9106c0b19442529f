// Which path runs: chosen once, from what this processor and its operating system can do.
#pragma once

#include <cstddef>

#include "box_job.h"

namespace algan::cpu {

void run_box_scalar(const BoxJob& job);
#if defined(ALGAN_X86)
void run_box_sse4(const BoxJob& job);
void run_box_avx2(const BoxJob& job);
void run_box_avx512(const BoxJob& job);
#elif defined(ALGAN_NEON)
void run_box_neon(const BoxJob& job);
#endif

struct Path {
  const char* name;
  bool (*runs_here)();
  RunBox run_box;
};

// The path in use. Throws InputError if ALGAN_SIMD asks for one that cannot run.
const Path& active_path();

// Whether an output of so many bytes shall be written past the caches.
bool streaming_pays(std::size_t bytes);

}  // namespace algan::cpu
