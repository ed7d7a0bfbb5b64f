# The CUDA toolkit, where there is one: sets MILLRACE_HAVE_CUDA. An nvcc is looked for in build/cuda-toolkit (ops/cuda-toolkit.sh puts
# one there), CUDA_HOME, the PATH and /usr/local/cuda.
#   -DMILLRACE_CUDA=OFF   do without
#   -DMILLRACE_CUDA=ON    fail where there is none
#   -DMILLRACE_CUDA_ARCHITECTURES=…   what to compile for; the last one also as PTX, for later GPUs
include_guard(GLOBAL)
set(MILLRACE_CUDA AUTO CACHE STRING "The CUDA backend: AUTO, ON or OFF")
set_property(CACHE MILLRACE_CUDA PROPERTY STRINGS AUTO ON OFF)
set(MILLRACE_CUDA_ARCHITECTURES "80;90;90a" CACHE STRING "GPUs to compile for")
set(MILLRACE_HAVE_CUDA OFF)
if(MILLRACE_CUDA STREQUAL "OFF" OR MILLRACE_FUZZ)
  return()
endif()

find_program(MILLRACE_NVCC nvcc
  HINTS "${CMAKE_CURRENT_LIST_DIR}/../build/cuda-toolkit/bin" "$ENV{CUDA_HOME}/bin" /usr/local/cuda/bin)
if(NOT MILLRACE_NVCC)
  if(MILLRACE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "MILLRACE_CUDA is ON, but there is no nvcc: install the CUDA toolkit, or run ops/cuda-toolkit.sh")
  endif()
  message(STATUS "CUDA: no nvcc found, the engine is built for CPUs only (ops/cuda-toolkit.sh fetches one)")
  return()
endif()

set(CMAKE_CUDA_COMPILER "${MILLRACE_NVCC}")
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
list(TRANSFORM MILLRACE_CUDA_ARCHITECTURES APPEND "-real" OUTPUT_VARIABLE CMAKE_CUDA_ARCHITECTURES)
list(APPEND CMAKE_CUDA_ARCHITECTURES 90-virtual)
enable_language(CUDA)
set(CMAKE_CUDA_FLAGS_RELWITHDEBINFO "-O3 -lineinfo -DNDEBUG")
if(CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()
set(MILLRACE_HAVE_CUDA ON)
