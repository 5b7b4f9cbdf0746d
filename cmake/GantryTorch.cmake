# libtorch as TORCH_INCLUDE_DIRS and TORCH_LIBRARIES.
#
# A libtorch built for CUDA (PyPI's wheel is one on most machines) makes find_package(Torch) demand a whole CUDA toolkit,
# which only our own CUDA kernels need. Without GANTRY_WITH_CUDA the libraries of such a build are linked directly.
if(NOT GANTRY_WITH_CUDA AND Torch_DIR)
  get_filename_component(_torch_root "${Torch_DIR}/../../.." ABSOLUTE)
endif()

if(_torch_root AND EXISTS "${_torch_root}/lib/libtorch_cuda.so")
  file(STRINGS "${_torch_root}/share/cmake/Torch/TorchConfigVersion.cmake" _version REGEX "PACKAGE_VERSION \"")
  string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" _version "${_version}")
  if(_version VERSION_LESS 2.6)
    message(FATAL_ERROR "Torch_DIR=${Torch_DIR}: expected libtorch 2.6 or newer, found '${_version}'")
  endif()
  message(STATUS "Found Torch ${_version} (built for CUDA, linked without a CUDA toolkit): ${_torch_root}")
  add_library(gantry_libtorch INTERFACE)
  target_link_libraries(gantry_libtorch INTERFACE
    "${_torch_root}/lib/libtorch.so" "${_torch_root}/lib/libtorch_cpu.so" "${_torch_root}/lib/libc10.so")
  # libtorch.so only pulls in libtorch_cuda.so, so nothing in it looks needed; CUDA's own libraries are found through the
  # run path of the wheel's.
  target_link_options(gantry_libtorch INTERFACE LINKER:--no-as-needed LINKER:--allow-shlib-undefined)
  target_compile_definitions(gantry_libtorch INTERFACE USE_DISTRIBUTED USE_C10D_GLOO)
  set(TORCH_LIBRARIES gantry_libtorch)
  set(TORCH_INCLUDE_DIRS "${_torch_root}/include" "${_torch_root}/include/torch/csrc/api/include")
else()
  find_package(Torch 2.6 REQUIRED)
endif()
