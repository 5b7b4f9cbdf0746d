#pragma once
// Dropout (Srivastava et al. 2014) whose mask is a function of a seed (cpu/dropout_rule.h), so that backward draws it
// again and nothing is stored.
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>

#include "gantry/kernels/cpu/dropout_rule.h"

namespace gantry::kernels {

/// A rule for one use: the seed is drawn from `generator` (torch's default CPU generator without one), so that
/// torch::manual_seed, and code that saves and restores the state of the generator, govern it. InputError unless
/// 0 <= p <= 1. Draws nothing for p = 0.
DropoutRule draw_dropout(double p, std::optional<at::Generator> generator = std::nullopt);

enum class DropoutMask {
  kReplay,  ///< nothing is kept; backward draws the mask again
  kBits     ///< one bit an element is kept
};

/// x * keep / rate, any shape; element i of the contiguous tensor follows the rule's element i. NaN and infinity that
/// are dropped become NaN, as in torch. A rule that drops nothing returns x. Differentiable.
at::Tensor dropout(const at::Tensor& x, const DropoutRule& rule, DropoutMask mask = DropoutMask::kReplay);

/// The mask of `dropout`, true where an element is kept; on the CPU.
at::Tensor dropout_keep_mask(at::IntArrayRef sizes, const DropoutRule& rule);

/// The same from ATen operators and the exported mask; the oracle, and what runs where there is no raw kernel.
at::Tensor dropout_reference(const at::Tensor& x, const DropoutRule& rule);

}  // namespace gantry::kernels
