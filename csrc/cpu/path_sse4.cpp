#define ALGAN_PATH sse4
#include "box_body.h"
#include "dispatch.h"
#include "ops_128.h"

namespace algan::cpu {

void run_box_sse4(const BoxJob& job) { sse4::run_box<sse4::Ops128>(job); }

}  // namespace algan::cpu
