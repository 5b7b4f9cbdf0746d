#pragma once
#include <cstdint>

#include "gantry/kernels/cpu/bf16.h"
#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

/// z = silu(gate) * up. gate and up are the halves of each row of one matrix.
template <class T>
struct SwigluForwardArgs {
  const T* gate_up;  ///< [rows, 2 n]
  T* z;              ///< [rows, n]
  std::int64_t n;
};

template <class T>
struct SwigluBackwardArgs {
  const T* dz;       ///< [rows, n]
  const T* gate_up;  ///< [rows, 2 n]
  T* dgate_up;       ///< [rows, 2 n]; may be gate_up itself
  std::int64_t n;
};

GANTRY_ISA_DECLARE(template <class T>
                   void swiglu_forward(const SwigluForwardArgs<T>& args, std::int64_t begin, std::int64_t end);
                   template <class T>
                   void swiglu_backward(const SwigluBackwardArgs<T>& args, std::int64_t begin, std::int64_t end);)

}  // namespace gantry::kernels
