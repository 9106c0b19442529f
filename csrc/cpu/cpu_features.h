// What the processor offers and the operating system saves on a context switch; both are needed.
#pragma once

namespace algan::cpu {

bool has_sse4();    // SSE4.1 and what comes before it: SSE3, SSSE3
bool has_avx2();    // AVX2, FMA
bool has_avx512();  // F, BW, DQ, VL, and all that has_avx2 asks for

// Streaming stores gain there for large outputs. On an EPYC of AMD's they cost up to five times
// the time of plain ones: five planes whose addresses agree in their low bits, as those of 256 or
// 512 px do, wait for each other.
bool made_by_intel();

}  // namespace algan::cpu
