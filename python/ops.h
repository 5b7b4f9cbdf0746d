#pragma once
// The operators of gantry.nn, as the dispatcher of torch knows them: torch.ops.gantry.*. Every one is a pure function
// of its arguments, dropout by a seed among them, so that compilers may move, repeat and recompute it. CPU kernels
// stand here; shapes for tracing and derivatives are registered by gantry/nn/_ops.py.
//
// Results that a derivative needs are returned beside the value. An optional result that is absent is an empty tensor:
// the dispatcher knows no undefined ones.
#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <cstdint>
#include <optional>
#include <string_view>

#include "gantry/kernels/activation/activation_raw.h"
#include "gantry/kernels/cpu/dropout_rule.h"

namespace gantry::python {

using OptionalTensor = std::optional<at::Tensor>;

/// gelu, gelu_tanh, silu or quick_gelu; InputError for others.
kernels::Activation activation_of(std::string_view kind);

/// `seed` is an int64 of one element on the CPU, which p > 0 needs. InputError for anything else.
kernels::DropoutRule rule_of(const OptionalTensor& seed, double p);

inline at::Tensor value_or_undefined(const OptionalTensor& x) { return x.value_or(at::Tensor()); }

/// What stands for an absent result.
inline at::Tensor absent(const at::Tensor& like) { return at::empty({0}, like.options()); }
inline at::Tensor or_absent(const at::Tensor& x, const at::Tensor& like) { return x.defined() ? x : absent(like); }

/// While one lives, ATen operators record nothing and cast nothing.
struct BelowAutograd {
  at::AutoDispatchBelowADInplaceOrView dispatch;
  c10::NoGradGuard no_grad;
  c10::impl::ExcludeDispatchKeyGuard no_autocast{c10::autocast_dispatch_keyset};
};

}  // namespace gantry::python
