/// @file
/// Marks functions that run on the host and in CUDA kernels.
#pragma once

#if defined(__CUDACC__)
#define ALGAN_HD __host__ __device__ __forceinline__
#else
// Always inlined: an out-of-line copy compiled for one instruction set could otherwise be
// merged by the linker into code that runs on a machine without it.
#define ALGAN_HD inline __attribute__((always_inline))
#endif
