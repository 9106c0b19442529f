// ALGAN_SIMD=<argument>: either that path is the active one, or it is refused with an error.
#include <algorithm>
#include <string>

#include "algan/error.h"
#include "algan/preprocess.h"
#include "check.h"

int main(int argc, char** argv) {
  CHECK(argc == 2);
  const std::string wanted = argc == 2 ? argv[1] : "";
  const std::vector<std::string> available = algan::available_simd();
  CHECK(!available.empty() && available.back() == "scalar");
#if defined(ALGAN_NEON)
  CHECK(available.front() == "neon");  // every aarch64 has it
#endif
  if (std::find(available.begin(), available.end(), wanted) != available.end()) {
    CHECK(algan::active_simd() == wanted);
  } else {
    CHECK_THROWS(algan::active_simd(), algan::InputError);
  }
  return check::failures();
}
