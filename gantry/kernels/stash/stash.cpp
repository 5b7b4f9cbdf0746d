#include "gantry/kernels/stash/stash.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <limits>

#include "gantry/kernels/activation/activation_dispatch.h"

namespace gantry::kernels {
namespace {

void check_stash_type(const at::Tensor& x) {
  GANTRY_CHECK(at::isFloatingType(x.scalar_type()), "stash: expected a floating-point tensor, got {}",
               c10::toString(x.scalar_type()));
}

bool has_stash_kernel(at::ScalarType type) { return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf; }

/// Calls body.template operator()<Raw>() with Raw = float, Bf16 or Fp16.
template <class Body>
void dispatch_stash(at::ScalarType type, Body&& body) {
  if (type == at::kHalf) return body.template operator()<Fp16>();
  dispatch_raw(type, body);
}

constexpr std::int64_t kStashGrain = 16384 / kStashGroup;

}  // namespace

Stashed stash_reference(const at::Tensor& x) {
  check_stash_type(x);
  const at::NoGradGuard no_grad;
  const std::int64_t n = x.numel(), groups = stash_groups(n);
  const at::Tensor flat = x.to(at::kFloat).reshape({-1});
  const at::Tensor grouped = at::constant_pad_nd(flat, {0, groups * kStashGroup - n}).view({groups, kStashGroup});
  const at::Tensor largest = grouped.abs().amax(1);  // NaN wins
  const at::Tensor bits = (largest / 127.0).view(at::kInt).add(0xffff).bitwise_and_(~0xffff);
  const at::Tensor rounded_up = bits.clamp_min_(0x00800000).view(at::kFloat);
  const at::Tensor scales = at::where(largest.isfinite(), rounded_up, std::numeric_limits<float>::quiet_NaN());
  const at::Tensor values = at::nan_to_num(grouped * scales.reciprocal().unsqueeze(1), 0.0).round_().to(at::kChar);
  return {values.view({-1}).narrow(0, 0, n).clone(), scales.to(at::kBFloat16), x.sizes().vec(), x.scalar_type()};
}

at::Tensor unstash_reference(const Stashed& stashed) {
  const at::NoGradGuard no_grad;
  const at::Tensor scales = stashed.scales.to(at::kFloat).repeat_interleave(kStashGroup);
  double highest = std::numeric_limits<float>::max();
  if (stashed.type == at::kBFloat16) highest = 0x1.FEp127;
  if (stashed.type == at::kHalf) highest = 65504;
  const at::Tensor x = stashed.values.to(at::kFloat) * scales.narrow(0, 0, stashed.values.numel());
  return at::clamp(x, -highest, highest).to(stashed.type).view(stashed.sizes);
}

Stashed stash(const at::Tensor& x) {
  check_stash_type(x);
  if (!x.is_cpu()) return stash_reference(x);
  const at::NoGradGuard no_grad;
  if (!has_stash_kernel(x.scalar_type())) {
    Stashed result = stash(x.to(at::kFloat));
    result.type = x.scalar_type();
    return result;
  }
  const at::Tensor dense = x.contiguous();
  const std::int64_t n = dense.numel(), groups = stash_groups(n);
  const Stashed result{at::empty({n}, dense.options().dtype(at::kChar)),
                       at::empty({groups}, dense.options().dtype(at::kBFloat16)), x.sizes().vec(), x.scalar_type()};
  dispatch_stash(dense.scalar_type(), [&]<class Raw>() {
    const auto kernel = GANTRY_ISA_SELECT(stash<Raw>);
    const StashArgs<Raw> args{.x = raw_const<Raw>(dense),
                              .values = raw<std::int8_t>(result.values),
                              .scales = raw<Bf16>(result.scales),
                              .n = n};
    at::parallel_for(0, groups, kStashGrain, [&](auto begin, auto end) { kernel(args, begin, end); });
  });
  return result;
}

at::Tensor unstash(const Stashed& stashed) {
  const at::NoGradGuard no_grad;
  if (!stashed.values.is_cpu()) return unstash_reference(stashed);
  const bool direct = has_stash_kernel(stashed.type);
  at::Tensor x = at::empty(stashed.sizes, stashed.values.options().dtype(direct ? stashed.type : at::kFloat));
  GANTRY_ASSERT(x.numel() == stashed.values.numel());
  dispatch_stash(x.scalar_type(), [&]<class Raw>() {
    const auto kernel = GANTRY_ISA_SELECT(unstash<Raw>);
    const UnstashArgs<Raw> args{.values = raw_const<std::int8_t>(stashed.values),
                                .scales = raw_const<Bf16>(stashed.scales),
                                .x = raw<Raw>(x),
                                .n = x.numel()};
    at::parallel_for(0, stash_groups(x.numel()), kStashGrain, [&](auto begin, auto end) { kernel(args, begin, end); });
  });
  return direct ? x : x.to(stashed.type);
}

}  // namespace gantry::kernels
