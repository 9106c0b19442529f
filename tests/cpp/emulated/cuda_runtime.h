// Found before CUDA's own header of this name where kernels are compiled for the processor.
#pragma once

#include "../cuda_emulation.h"
