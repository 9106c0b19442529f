#define ALGAN_PATH avx512
#include "box_body.h"
#include "dispatch.h"
#include "ops_avx512.h"

namespace algan::cpu {

void run_box_avx512(const BoxJob& job) { avx512::run_box<avx512::Avx512Ops>(job); }

}  // namespace algan::cpu
