// The smallest harness that reports every failure: CHECK(condition), then return failures().
#pragma once

#include <atomic>
#include <cstdio>

namespace check {

inline std::atomic<int>& count() {
  static std::atomic<int> failed{0};
  return failed;
}

inline int failures() { return count() == 0 ? 0 : 1; }

inline void report(bool passed, const char* text, const char* file, int line) {
  if (passed) return;
  ++count();
  std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, text);
}

}  // namespace check

#define CHECK(condition) ::check::report((condition), #condition, __FILE__, __LINE__)

#define CHECK_THROWS(expression, Error)                                         \
  do {                                                                          \
    bool thrown = false;                                                        \
    try {                                                                       \
      (void)(expression);                                                       \
    } catch (const Error&) {                                                    \
      thrown = true;                                                            \
    }                                                                           \
    ::check::report(thrown, #expression " throws " #Error, __FILE__, __LINE__); \
  } while (false)
