#define ALGAN_PATH avx2
#include "box_body.h"
#include "dispatch.h"
#include "ops_avx2.h"

namespace algan::cpu {

void run_box_avx2(const BoxJob& job) { avx2::run_box<avx2::Avx2Ops>(job); }

}  // namespace algan::cpu
