#define ALGAN_PATH neon
#include "box_body.h"
#include "dispatch.h"
#include "ops_128.h"

namespace algan::cpu {
namespace neon {

struct NeonOps : Ops128 {
  static void to_half(const float* from, std::int32_t count, std::uint16_t* to) {
    std::int32_t i = 0;
    for (; i + 4 <= count; i += 4) {
      vst1_u16(to + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(from + i))));
    }
    ScalarOps::to_half(from + i, count - i, to + i);
  }
};

}  // namespace neon

void run_box_neon(const BoxJob& job) { neon::run_box<neon::NeonOps>(job); }

}  // namespace algan::cpu
