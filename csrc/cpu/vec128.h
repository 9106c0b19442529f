// The 128-bit vectors that the bodies *_128.h are written in: SSE4.1 or NEON.
#pragma once

#if defined(__SSE4_1__)
#include "vec128_sse4.h"
#else
#include "vec128_neon.h"
#endif
