#pragma once
// Gated activation z = f(gate) * up whose backward pass regenerates z. Torch-free.
#include <cstdint>

#include "gantry/kernels/activation/activation_raw.h"
#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

/// gate and up are the halves of each row of one matrix.
template <class T>
struct GatedForwardArgs {
  Activation kind;
  const T* gate_up;  ///< [rows, 2 n]
  T* z;              ///< [rows, n]
  std::int64_t n;
};

template <class T>
struct GatedBackwardArgs {
  Activation kind;
  const T* gate_up;  ///< [rows, 2 n]
  const T* dz;       ///< [rows, n]
  T* dgate_up;       ///< [rows, 2 n]; may be gate_up
  T* z;              ///< [rows, n]; may be dz
  std::int64_t n;
};

/// Rows [begin, end); T is float, Bf16 or Fp16.
GANTRY_ISA_DECLARE(template <class T>
                   void gated_forward(const GatedForwardArgs<T>& args, std::int64_t begin, std::int64_t end);
                   template <class T>
                   void gated_backward(const GatedBackwardArgs<T>& args, std::int64_t begin, std::int64_t end);)

}  // namespace gantry::kernels
