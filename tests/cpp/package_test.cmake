# Uses the C++ library as a stranger would: installs it, builds examples/cpp against what was
# installed, and runs that on pictures whose outputs are known.
#
#   cmake -P tests/cpp/package_test.cmake      from anywhere; works in build/cpp and build/prefix*
cmake_minimum_required(VERSION 3.23)
get_filename_component(source "${CMAKE_CURRENT_LIST_DIR}/../.." ABSOLUTE)
set(built "${source}/build")
set(prefix "${built}/prefix")
set(example "${built}/prefix-example")
unset(ENV{MAKEFLAGS}) # a make that calls this keeps its own
unset(ENV{ALGAN_SIMD})

function(must)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY "${source}" RESULT_VARIABLE code
                  OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT code EQUAL 0)
    string(REPLACE ";" " " command "${ARGN}")
    message(FATAL_ERROR "ended with ${code}: ${command}\n${output}")
  endif()
endfunction()

# ---- install -------------------------------------------------------------------------------------

file(REMOVE_RECURSE "${prefix}" "${prefix}-first" "${example}")
must("${CMAKE_COMMAND}" --preset cpp)
must("${CMAKE_COMMAND}" --build --preset cpp --parallel 2)
must("${CMAKE_COMMAND}" --install build/cpp --prefix "${prefix}-first")
# A package must not remember where it was installed.
file(RENAME "${prefix}-first" "${prefix}")

file(GLOB_RECURSE installed RELATIVE "${prefix}" "${prefix}/*")
list(FILTER installed INCLUDE REGEX "^include/")
file(GLOB headers RELATIVE "${source}/csrc" "${source}/csrc/include/algan/*.h")
if(NOT installed STREQUAL headers)
  message(FATAL_ERROR "expected the public headers alone:\n  ${headers}\ninstalled:\n  ${installed}")
endif()
file(GLOB_RECURSE scripts "${prefix}/*.cmake")
foreach(script IN LISTS scripts)
  file(READ "${script}" text)
  string(FIND "${text}" "${source}" at)
  if(NOT at EQUAL -1 OR text MATCHES "algan_flags|-Wconversion|-ffp-contract|-fsanitize|ALGAN_X86")
    message(FATAL_ERROR "${script} holds a path or a flag of this build:\n${text}")
  endif()
endforeach()

# ---- build against it ----------------------------------------------------------------------------

must("${CMAKE_COMMAND}" -S examples/cpp -B "${example}" -G Ninja "-DCMAKE_PREFIX_PATH=${prefix}"
     "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wconversion -Wpedantic -Werror")
must("${CMAKE_COMMAND}" --build "${example}")

# Only versions with the same interface are taken.
file(MAKE_DIRECTORY "${example}/newer")
file(WRITE "${example}/newer/CMakeLists.txt"
     "cmake_minimum_required(VERSION 3.18...4.0)\nproject(newer LANGUAGES CXX)\n"
     "find_package(algan_core 99.0 QUIET)\nif(algan_core_FOUND)\n"
     "  message(FATAL_ERROR \"99.0 was taken\")\nendif()\n")
must("${CMAKE_COMMAND}" -S "${example}/newer" -B "${example}/newer/build" -G Ninja
     "-DCMAKE_PREFIX_PATH=${prefix}")

# ---- run -----------------------------------------------------------------------------------------

# run(code expected_text arguments...): the text is from standard output, or of an error.
function(run code expected)
  execute_process(COMMAND "${example}/preprocess_picture" ${ARGN} RESULT_VARIABLE got
                  OUTPUT_VARIABLE output ERROR_VARIABLE errors)
  set(text "${output}")
  if(NOT code EQUAL 0)
    set(text "${errors}")
  endif()
  string(FIND "${text}" "${expected}" at)
  if(NOT got EQUAL ${code} OR at EQUAL -1)
    message(FATAL_ERROR "preprocess_picture ${ARGN}: expected code ${code} and\n${expected}\n"
                        "got code ${got} and\n${output}${errors}")
  endif()
endfunction()

# Red 70, green 33, blue 126, as letters: (value / 255 - 0.5) / 0.5, whatever the crop and filter.
string(REPEAT "F!~" 3072 pixels) # 64 x 48
set(channels
    "  red      min  -0.451  max  -0.451  mean  -0.451\n"
    "  green    min  -0.741  max  -0.741  mean  -0.741\n"
    "  blue     min  -0.012  max  -0.012  mean  -0.012\n"
    "  maximum  min  -0.012  max  -0.012  mean  -0.012\n"
    "  mean     min  -0.401  max  -0.401  mean  -0.401\n")
string(CONCAT channels ${channels})
file(WRITE "${example}/colour.ppm" "P6\n# a comment\n64 48\n255\n${pixels}")
run(0 "shape 3 x 5 x 256 x 256 float32" "${example}/colour.ppm")
run(0 "box 0.0, 0.0 to 64.0, 48.0\n${channels}" "${example}/colour.ppm")
run(0 "box 16.0, 12.0 to 64.0, 48.0\n${channels}" "${example}/colour.ppm")

string(REPEAT "F" 3072 pixels)
file(WRITE "${example}/grey.pgm" "P5 64 48 255\n${pixels}")
run(0 "  mean     min  -0.451  max  -0.451  mean  -0.451\n" "${example}/grey.pgm")
run(0 "  blue     min  -1.000  max   1.000") # the picture that it draws

file(WRITE "${example}/short.ppm" "P6 64 48 255\n${pixels}")
run(1 "expected 9216 bytes of pixels, got 3072" "${example}/short.ppm")
run(1 "expected a binary PGM (P5) or PPM (P6)" "${example}/CMakeCache.txt")
run(1 "no-such.ppm: cannot be opened" "${example}/no-such.ppm")

set(ENV{ALGAN_SIMD} scalar)
run(0 "path scalar\n" "${example}/colour.ppm")
set(ENV{ALGAN_SIMD} nonsense)
run(1 "nonsense")
message("the installed C++ package works")
