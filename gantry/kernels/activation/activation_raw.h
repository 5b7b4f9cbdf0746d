#pragma once
// Activations whose backward pass needs only their output, and their exact forms. Torch-free.
#include <cstdint>

#include "gantry/kernels/cpu/bf16.h"
#include "gantry/kernels/cpu/isa_dispatch.h"

namespace gantry::kernels {

enum class Activation : std::int32_t {
  kGeluErf,
  kGeluTanh,
  kSilu,
  kQuickGelu,  ///< x sigmoid(1.702 x)
};

/// How well the backward pass reconstructs the derivative (design: signed-root fit, activation_fit.h).
enum class FitQuality : std::int32_t {
  kAccurate,  ///< fp32: largest error 1.5e-4 (at the minimum, set by the rounding of y), RMS 3e-6 for normal inputs
  kFast,      ///< one polynomial: largest error 2.5e-3, RMS 1.3e-3
};

/// Where the side of the minimum is kept for each element.
enum class SideFlag : std::int32_t {
  kNone,    ///< nowhere: forward only
  kByte,    ///< uint8, 1 right of the minimum
  kBit,     ///< one bit, least significant first
  kLowBit,  ///< in the last mantissa bit of negative outputs, which move by at most one unit in the last place
};

/// Storage of an IEEE half in raw kernels.
struct Fp16 {
  std::uint16_t bits;
};

template <class T>
struct ActivationForwardArgs {
  Activation kind;
  SideFlag side;
  const T* x;
  T* y;                 ///< may be x
  std::uint8_t* flags;  ///< by `side`: n bytes, ceil(n / 8) bytes, or null
};

template <class T>
struct ActivationBackwardArgs {
  Activation kind;
  FitQuality quality;
  SideFlag side;  ///< not kNone
  const T* y;
  const T* dy;
  T* dx;  ///< may be dy or y
  const std::uint8_t* flags;
};

/// dx = dy f'(x) from the input, and y = f(x) again where asked for.
template <class T>
struct ActivationExactArgs {
  Activation kind;
  const T* x;
  const T* dy;
  T* dx;  ///< may be dy
  T* y;   ///< may be x; or null
};

/// Pieces of a range start at multiples of this, so that no two threads share a byte of bits.
inline constexpr std::int64_t kActivationBlock = 64;

/// Elements [begin, end) of flat arrays; T is float, Bf16 or Fp16. NaN gives NaN; -infinity gives NaN as in torch.
GANTRY_ISA_DECLARE(template <class T>
                   void activation_forward(const ActivationForwardArgs<T>& args, std::int64_t begin, std::int64_t end);
                   template <class T> void activation_backward(const ActivationBackwardArgs<T>& args,
                                                               std::int64_t begin, std::int64_t end);
                   template <class T> void activation_exact_backward(const ActivationExactArgs<T>& args,
                                                                     std::int64_t begin, std::int64_t end);)

/// The same in double precision, one element at a time: f and f' by the C library, f^-1 by Newton's method kept inside
/// a bracket. For gradient checks.
void activation_forward_fp64(const ActivationForwardArgs<double>& args, std::int64_t begin, std::int64_t end);
void activation_backward_fp64(const ActivationBackwardArgs<double>& args, std::int64_t begin, std::int64_t end);
void activation_exact_backward_fp64(const ActivationExactArgs<double>& args, std::int64_t begin, std::int64_t end);

}  // namespace gantry::kernels
