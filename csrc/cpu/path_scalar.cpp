#define ALGAN_PATH scalar
#include "box_body.h"
#include "dispatch.h"

namespace algan::cpu {

void run_box_scalar(const BoxJob& job) { scalar::run_box<scalar::ScalarOps>(job); }

}  // namespace algan::cpu
