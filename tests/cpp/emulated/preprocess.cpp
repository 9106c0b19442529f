// The kernels' source as C++.
#include "cuda/preprocess.cu"  // NOLINT(bugprone-suspicious-include)
