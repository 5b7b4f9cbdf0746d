# gantry_module(<name> SOURCES ... DEPS ... [LIBS ...] [TORCH])
#   Makes the static library gantry_<name> from files beside the caller. DEPS are other modules; they are exactly the
#   right-hand column of the module table in docs/DESIGN.md. TORCH links libtorch and shares its precompiled header.
function(gantry_module name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;DEPS;LIBS" ${ARGN})
  add_library(gantry_${name} STATIC ${ARG_SOURCES})
  target_include_directories(gantry_${name} PUBLIC ${PROJECT_SOURCE_DIR})
  list(TRANSFORM ARG_DEPS PREPEND gantry_)
  target_link_libraries(gantry_${name} PUBLIC ${ARG_DEPS} ${ARG_LIBS})
  if(ARG_TORCH)
    gantry_use_torch(gantry_${name})
  endif()
  gantry_unity(gantry_${name} 8)
endfunction()

# libtorch ships headers of another fmt release beside its own and no library for them: a folder with nothing but our
# fmt's headers goes before.
function(gantry_own_fmt_first result)
  set(folder ${CMAKE_BINARY_DIR}/fmt_first)
  if(NOT EXISTS ${folder}/fmt)
    get_target_property(include fmt::fmt INTERFACE_INCLUDE_DIRECTORIES)
    list(GET include 0 include)
    file(MAKE_DIRECTORY ${folder})
    file(CREATE_LINK ${include}/fmt ${folder}/fmt SYMBOLIC)
  endif()
  set(${result} ${folder} PARENT_SCOPE)
endfunction()

# Links libtorch and reuses one precompiled header for every target. Not torch/torch.h: g++ instantiates, in every file,
# what a header leaves pending, and an empty file with that one takes twice as long as with these four.
function(gantry_use_torch target)
  gantry_own_fmt_first(fmt_first)
  target_include_directories(${target} SYSTEM BEFORE PUBLIC ${fmt_first})
  target_include_directories(${target} SYSTEM PUBLIC ${TORCH_INCLUDE_DIRS})
  target_link_libraries(${target} PUBLIC ${TORCH_LIBRARIES})
  # at::parallel_for is an inline OpenMP region: without this flag it runs on one thread, silently. The runtime is the
  # libgomp that libtorch has loaded (one soname, one instance).
  target_compile_options(${target} PUBLIC -fopenmp)
  target_link_options(${target} PUBLIC -fopenmp)
  # The precompiled header is made with -fPIC and does not suit -fPIE, which executables would get.
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "EXECUTABLE")
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
  # CMake's own precompiled headers force-include torch.h into every file, torch-free kernels too; those opt out
  # with gantry_torch_free().
  if(NOT TARGET gantry_torch_pch)
    file(WRITE ${CMAKE_BINARY_DIR}/pch/torch_pch.cpp "// Carrier of the precompiled torch header.\n")
    add_library(gantry_torch_pch OBJECT ${CMAKE_BINARY_DIR}/pch/torch_pch.cpp)
    target_include_directories(gantry_torch_pch SYSTEM PUBLIC ${fmt_first} ${TORCH_INCLUDE_DIRS})
    target_link_libraries(gantry_torch_pch PUBLIC ${TORCH_LIBRARIES})
    target_compile_options(gantry_torch_pch PUBLIC -fopenmp)
    target_precompile_headers(gantry_torch_pch PRIVATE
      <ATen/ATen.h> <torch/csrc/autograd/custom_function.h> <torch/nn/module.h> <torch/nn/pimpl.h>)
  endif()
  target_precompile_headers(${target} REUSE_FROM gantry_torch_pch)
endfunction()

# Compiles up to `batch` files of a target as one (GANTRY_UNITY), so that what every file of its kind pays, 3 s with torch's
# headers, is paid once. Names in unnamed namespaces must differ within a target for it.
function(gantry_unity target batch)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${GANTRY_UNITY} UNITY_BUILD_BATCH_SIZE ${batch})
endfunction()

# Files of a torch module that include no torch header: no precompiled header, no torch includes needed.
function(gantry_torch_free)
  set_source_files_properties(${ARGN} PROPERTIES SKIP_PRECOMPILE_HEADERS ON SKIP_UNITY_BUILD_INCLUSION ON)
endfunction()

# gantry_test(<module> SOURCES ... [TORCH] [BY_SUITE] [LIBS ...])
#   One test binary a module, tests/<module>/*_test.cpp, found by ctest case by case, or suite by suite with BY_SUITE.
function(gantry_test name)
  cmake_parse_arguments(ARG "TORCH;BY_SUITE" "" "SOURCES;LIBS" ${ARGN})
  set(target gantry_${name}_test)
  add_executable(${target} ${ARG_SOURCES})
  target_link_libraries(${target} PRIVATE gantry_${name} ${ARG_LIBS} GTest::gtest GTest::gtest_main)
  target_compile_definitions(${target} PRIVATE
    GANTRY_SOURCE_DIR="${PROJECT_SOURCE_DIR}" GANTRY_BINARY_DIR="${CMAKE_BINARY_DIR}")
  set(processors 1)
  if(ARG_TORCH)
    gantry_use_torch(${target})
    # libtorch uses every processor; two such tests side by side would wait for each other's threads in every loop.
    cmake_host_system_information(RESULT processors QUERY NUMBER_OF_LOGICAL_CORES)
  endif()
  gantry_unity(${target} 6)
  if(NOT ARG_BY_SUITE)
    gtest_discover_tests(${target} TEST_PREFIX "${name}." NO_PRETTY_VALUES DISCOVERY_TIMEOUT 60
      PROPERTIES TIMEOUT 600 PROCESSORS ${processors})
    return()
  endif()
  set(suites ${CMAKE_CURRENT_BINARY_DIR}/${target}_suites.cmake)
  add_custom_command(TARGET ${target} POST_BUILD BYPRODUCTS ${suites} VERBATIM
    COMMAND ${CMAKE_COMMAND} -DPROGRAM=$<TARGET_FILE:${target}> -DPREFIX=${name}. -DPROCESSORS=${processors}
            -DOUTPUT=${suites} -P ${PROJECT_SOURCE_DIR}/cmake/GtestSuites.cmake)
  set(include ${CMAKE_CURRENT_BINARY_DIR}/${target}_include.cmake)
  file(WRITE ${include} "if(EXISTS \"${suites}\")\n  include(\"${suites}\")\nelse()\n"
    "  add_test(${target}_NOT_BUILT ${target}_NOT_BUILT)\nendif()\n")
  set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${include})
endfunction()
