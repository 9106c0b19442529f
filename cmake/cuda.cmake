# The target algan_cuda, and ALGAN_HAS_CUDA: whether there is one. The CPU library knows nothing of it.

set(ALGAN_HAS_CUDA OFF)
if(NOT ALGAN_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "ALGAN_CUDA: expected AUTO, ON or OFF, got \"${ALGAN_CUDA}\"")
endif()
# A compiler for this machine makes nothing for another one.
if(ALGAN_CUDA STREQUAL "OFF" OR (ALGAN_CUDA STREQUAL "AUTO" AND CMAKE_CROSSCOMPILING))
  return()
endif()

if(NOT DEFINED CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  # Beside what is on the PATH, where NVIDIA's packages put it. check_language() tries it out.
  find_program(ALGAN_NVCC nvcc HINTS /usr/local/cuda/bin)
  if(ALGAN_NVCC)
    set(ENV{CUDACXX} ${ALGAN_NVCC})
  endif()
endif()
# A100, Jetson AGX Orin, H100; "90" is code for H100 and PTX for whatever comes after it.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 87-real 90)
endif()
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)

# An installation must not fail for want of what it did not ask for.
function(algan_without_cuda reason)
  if(ALGAN_CUDA STREQUAL "ON")
    message(FATAL_ERROR "ALGAN_CUDA=ON, but ${reason}; ALGAN_CUDA=OFF builds without")
  endif()
  message(STATUS "Building without CUDA: ${reason}")
endfunction()

include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  algan_without_cuda("no CUDA compiler works here: put nvcc on the PATH, or set CUDACXX to it")
  return()
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 11.8)
  algan_without_cuda("CUDA 11.8 is needed, ${CMAKE_CUDA_COMPILER} is ${CMAKE_CUDA_COMPILER_VERSION}")
  return()
endif()
find_package(CUDAToolkit)
if(NOT TARGET CUDA::cudart_static)
  algan_without_cuda("${CMAKE_CUDA_COMPILER} comes without the static CUDA runtime (cudart_static)")
  return()
endif()

add_library(algan_cuda STATIC csrc/cuda/preprocess.cu csrc/cuda/preprocessor.cpp)
# -fmad=false: bit by bit what the CPU's scalar path computes. nvcc's own glue code is not pedantic.
target_compile_options(
  algan_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-fmad=false
                     -Xcompiler=-Wall,-Wextra,-Wconversion,-fvisibility=hidden>)
if(ALGAN_WERROR)
  target_compile_options(algan_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings
                                            -Xcompiler=-Werror>)
endif()
target_include_directories(algan_cuda PUBLIC csrc)
target_link_libraries(algan_cuda PUBLIC algan_core CUDA::cudart_static PRIVATE algan_flags)
set(ALGAN_HAS_CUDA ON)
