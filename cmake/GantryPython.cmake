# The Python that the extension module is for, and its torch: module and interpreter must load the same libtorch.
#   Python_EXECUTABLE   wins (pip sets it); otherwise the virtual environment that `make setup` made
if(NOT Python_EXECUTABLE AND EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/.venv/bin/python")
  set(Python_EXECUTABLE "${CMAKE_CURRENT_SOURCE_DIR}/.venv/bin/python")
endif()
find_package(Python 3.10 COMPONENTS Interpreter Development.Module)
if(NOT Python_FOUND)
  message(FATAL_ERROR "GANTRY_BUILD_PYTHON: found no Python 3.10 or newer with its headers (interpreter: "
    "'${Python_EXECUTABLE}'); install python3-dev for it, or add -DGANTRY_BUILD_PYTHON=OFF")
endif()

execute_process(
  COMMAND "${Python_EXECUTABLE}" -c "import torch; print(torch.utils.cmake_prefix_path, end='')"
  OUTPUT_VARIABLE _gantry_prefix ERROR_QUIET RESULT_VARIABLE _gantry_result)
if(NOT _gantry_result EQUAL 0)
  message(FATAL_ERROR "GANTRY_BUILD_PYTHON: ${Python_EXECUTABLE} cannot import torch; run `make setup`, or install "
    "torch==2.13.0 there, or name another interpreter with -DPython_EXECUTABLE=...")
endif()
if(Torch_DIR AND NOT Torch_DIR STREQUAL "${_gantry_prefix}/Torch")
  message(WARNING "Torch_DIR=${Torch_DIR} gives way to the torch of ${Python_EXECUTABLE}, which the Python extension must "
    "share; add -DGANTRY_BUILD_PYTHON=OFF to build with your own libtorch")
endif()
set(Torch_DIR "${_gantry_prefix}/Torch")
get_filename_component(GANTRY_TORCH_ROOT "${_gantry_prefix}/../.." ABSOLUTE)
