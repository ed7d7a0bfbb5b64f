# millrace_library(JANSSON jansson>=2.13 jansson): the target PkgConfig::JANSSON, from pkg-config; or, with -DMILLRACE_PACK=DIR, from
# DIR/include and DIR/lib, as ops/gpu-check.sh --pack fills them for a machine on which nothing can be installed.
include_guard(GLOBAL)
set(MILLRACE_PACK "" CACHE PATH "Folder of ops/gpu-check.sh --pack; empty: the system's libraries")

function(millrace_library name module file)
  if(NOT MILLRACE_PACK)
    find_package(PkgConfig REQUIRED)
    pkg_check_modules(${name} REQUIRED IMPORTED_TARGET GLOBAL ${module})
    return()
  endif()
  find_library(MILLRACE_PACK_${name} NAMES lib${file}.a ${file} PATHS ${MILLRACE_PACK}/lib NO_DEFAULT_PATH REQUIRED)
  add_library(PkgConfig::${name} UNKNOWN IMPORTED GLOBAL)
  set_target_properties(PkgConfig::${name} PROPERTIES IMPORTED_LOCATION ${MILLRACE_PACK_${name}}
                        INTERFACE_INCLUDE_DIRECTORIES ${MILLRACE_PACK}/include)
endfunction()
