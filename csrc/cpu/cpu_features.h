// What the processor offers and the operating system saves on a context switch; both are needed.
#pragma once

namespace algan::cpu {

bool has_sse4();    // SSE4.1 and what comes before it: SSE3, SSSE3
bool has_avx2();    // AVX2, FMA
bool has_avx512();  // F, BW, DQ, VL, and all that has_avx2 asks for

}  // namespace algan::cpu
