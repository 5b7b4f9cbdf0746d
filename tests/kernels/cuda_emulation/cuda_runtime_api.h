#pragma once
#include "tests/kernels/cuda_emulation/cuda_runtime.h"
