# Compiler settings shared by the whole tree and by the engine's own build.
if(MILLRACE_BUILD_INCLUDED)
  return()
endif()
set(MILLRACE_BUILD_INCLUDED TRUE)

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_CXX_STANDARD 17) # the CUDA backend alone
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
# -O3 over CMake's -O2, and asserts stay on in tests only.
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O3 -g1 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO ${CMAKE_C_FLAGS_RELWITHDEBINFO})

option(MILLRACE_WERROR "Treat warnings as errors (CI does)" OFF)
option(MILLRACE_FUZZ "Build the libFuzzer targets (needs clang)" OFF)
set(MILLRACE_SANITIZE "" CACHE STRING "Sanitizers, as -fsanitize= takes them")

add_compile_definitions(_GNU_SOURCE)
add_compile_options("$<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:-Wall;-Wextra;-Wshadow;-Wvla;-fno-math-errno>"
                    "$<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes;-Wmissing-prototypes>")
if(MILLRACE_WERROR)
  add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>" "$<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:-Werror>")
endif()
if(MILLRACE_SANITIZE)
  add_compile_options(
    "$<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:-fsanitize=${MILLRACE_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>")
  add_link_options(-fsanitize=${MILLRACE_SANITIZE})
endif()
if(MILLRACE_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
