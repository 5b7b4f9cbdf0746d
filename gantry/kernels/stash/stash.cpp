#include "gantry/kernels/stash/stash.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <limits>

#include "gantry/kernels/activation/activation_dispatch.h"

namespace gantry::kernels {
namespace {

bool has_stash_kernel(const at::Tensor& x, at::ScalarType type) {
  return x.is_cpu() && (type == at::kFloat || type == at::kBFloat16 || type == at::kHalf);
}

/// Calls body.template operator()<Raw>() with Raw = float, Bf16 or Fp16.
template <class Body>
void dispatch_stash(at::ScalarType type, Body&& body) {
  if (type == at::kHalf) return body.template operator()<Fp16>();
  dispatch_raw(type, body);
}

constexpr std::int64_t kGrain = 16384 / kStashGroup;

// The rule of stash_raw.h in ATen operators, for other devices.
Stashed composed_stash(const at::Tensor& flat) {
  const std::int64_t n = flat.numel(), groups = stash_groups(n);
  const at::Tensor x =
      at::constant_pad_nd(flat.to(at::kFloat), {0, groups * kStashGroup - n}).view({groups, kStashGroup});
  const at::Tensor largest = x.abs().amax(1);  // NaN wins
  const at::Tensor bits = (largest / 127.0).view(at::kInt);
  const at::Tensor rounded = bits.add(0xffff).bitwise_and_(~0xffff).clamp_min_(0x00800000).view(at::kFloat);
  const at::Tensor scales = at::where(largest.isfinite(), rounded, std::numeric_limits<float>::quiet_NaN());
  const at::Tensor values = at::nan_to_num(x * scales.reciprocal().unsqueeze(1), 0.0).round_().to(at::kChar);
  return {values.flatten().narrow(0, 0, n).clone(), scales.to(at::kBFloat16), {}, at::kFloat};
}

at::Tensor composed_unstash(const Stashed& stashed) {
  const at::Tensor scales =
      stashed.scales.to(at::kFloat).repeat_interleave(kStashGroup).narrow(0, 0, stashed.values.numel());
  double highest = std::numeric_limits<float>::max();
  if (stashed.type == at::kBFloat16) highest = 0x1.FEp127;
  if (stashed.type == at::kHalf) highest = 65504;
  return (stashed.values.to(at::kFloat) * scales).clamp_(-highest, highest).to(stashed.type).view(stashed.sizes);
}

}  // namespace

Stashed stash(const at::Tensor& x) {
  GANTRY_CHECK(at::isFloatingType(x.scalar_type()), "stash: expected a floating-point tensor, got {}",
               c10::toString(x.scalar_type()));
  const at::NoGradGuard no_grad;
  if (x.is_cpu() && !has_stash_kernel(x, x.scalar_type())) {
    Stashed result = stash(x.to(at::kFloat));
    result.type = x.scalar_type();
    return result;
  }
  const at::Tensor dense = x.contiguous();
  const std::int64_t n = dense.numel();
  Stashed result;
  if (has_stash_kernel(dense, dense.scalar_type())) {
    result.values = at::empty({n}, dense.options().dtype(at::kChar));
    result.scales = at::empty({stash_groups(n)}, dense.options().dtype(at::kBFloat16));
    dispatch_stash(dense.scalar_type(), [&]<class Raw>() {
      const auto kernel = GANTRY_ISA_SELECT(stash<Raw>);
      const StashArgs<Raw> args{.x = raw_const<Raw>(dense),
                                .values = raw<std::int8_t>(result.values),
                                .scales = raw<Bf16>(result.scales),
                                .n = n};
      at::parallel_for(0, stash_groups(n), kGrain, [&](auto begin, auto end) { kernel(args, begin, end); });
    });
  } else {
    result = composed_stash(dense.flatten());
  }
  result.sizes = x.sizes().vec();
  result.type = x.scalar_type();
  return result;
}

at::Tensor unstash(const Stashed& stashed) {
  const at::NoGradGuard no_grad;
  if (!stashed.values.is_cpu()) return composed_unstash(stashed);
  const bool direct = has_stash_kernel(stashed.values, stashed.type);
  at::Tensor x = at::empty(stashed.sizes, stashed.values.options().dtype(direct ? stashed.type : at::kFloat));
  GANTRY_ASSERT(x.numel() == stashed.values.numel());
  dispatch_stash(x.scalar_type(), [&]<class Raw>() {
    const auto kernel = GANTRY_ISA_SELECT(unstash<Raw>);
    const UnstashArgs<Raw> args{.values = raw_const<std::int8_t>(stashed.values),
                                .scales = raw_const<Bf16>(stashed.scales),
                                .x = raw<Raw>(x),
                                .n = x.numel()};
    at::parallel_for(0, stash_groups(x.numel()), kGrain, [&](auto begin, auto end) { kernel(args, begin, end); });
  });
  return direct ? x : x.to(stashed.type);
}

}  // namespace gantry::kernels
