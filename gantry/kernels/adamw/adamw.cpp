#include "gantry/kernels/adamw/adamw.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <numeric>

#include "gantry/kernels/adamw/adamw_raw.h"
#include "gantry/kernels/common.h"

namespace gantry::kernels {
namespace {

constexpr std::int64_t kAdamwGrain = 1 << 16;

AdamwStep make_step(const AdamwParameters& p) {
  return {.learning_rate = static_cast<float>(p.learning_rate),
          .beta1 = static_cast<float>(p.beta1),
          .beta2 = static_cast<float>(p.beta2),
          .eps = static_cast<float>(p.eps),
          .weight_decay = static_cast<float>(p.weight_decay),
          .bias_correction1 = static_cast<float>(1.0 - std::pow(p.beta1, static_cast<double>(p.step))),
          .bias_correction2 = static_cast<float>(1.0 - std::pow(p.beta2, static_cast<double>(p.step))),
          .gradient_scale = static_cast<float>(p.gradient_scale)};
}

void check_flat(const char* name, const at::Tensor& x, std::int64_t n, at::ScalarType type) {
  GANTRY_CHECK(x.dim() == 1 && x.size(0) == n && x.is_contiguous() && x.scalar_type() == type,
               "adamw: {} must be a contiguous {} vector of {}, got {} {}", name, c10::toString(type), n,
               c10::toString(x.scalar_type()), c10::str(x.sizes()));
}

// Any device and type, from ATen operators; the oracle of the tests too.
void reference_update(const at::Tensor& master, const at::Tensor& gradient, const at::Tensor& first,
                      const at::Tensor& second, const AdamwParameters& p) {
  const at::Tensor g = gradient.to(at::kFloat) * p.gradient_scale;
  first.mul_(p.beta1).add_(g, 1 - p.beta1);
  second.mul_(p.beta2).addcmul_(g, g, 1 - p.beta2);
  const double c1 = 1.0 - std::pow(p.beta1, static_cast<double>(p.step));
  const double c2 = 1.0 - std::pow(p.beta2, static_cast<double>(p.step));
  master.mul_(1 - p.learning_rate * p.weight_decay);
  master.addcdiv_(first, (second / c2).sqrt_().add_(p.eps), -p.learning_rate / c1);
}

}  // namespace

void adamw_(const at::Tensor& weight, const at::Tensor& gradient, const at::Tensor& first, const at::Tensor& second,
            const AdamwParameters& parameters) {
  const std::int64_t n = weight.numel();
  check_flat("weight", weight, n, at::kFloat);
  check_flat("gradient", gradient, n, at::kFloat);
  check_flat("first moment", first, n, at::kFloat);
  check_flat("second moment", second, n, at::kFloat);
  const at::NoGradGuard no_grad;
  if (!weight.is_cpu()) return reference_update(weight, gradient, first, second, parameters);
  const AdamwArgs args{raw<float>(weight), raw_const<float>(gradient), raw<float>(first), raw<float>(second)};
  const AdamwStep step = make_step(parameters);
  const auto kernel = GANTRY_ISA_SELECT(adamw);
  at::parallel_for(0, n, kAdamwGrain, [&](std::int64_t begin, std::int64_t end) { kernel(args, step, begin, end); });
}

void adamw_split_(const at::Tensor& weight, const at::Tensor& remainder, const at::Tensor& gradient,
                  const at::Tensor& first, const at::Tensor& second, const AdamwParameters& parameters) {
  const std::int64_t n = weight.numel();
  check_flat("weight", weight, n, at::kBFloat16);
  check_flat("remainder", remainder, n, at::kShort);
  check_flat("gradient", gradient, n, gradient.scalar_type() == at::kBFloat16 ? at::kBFloat16 : at::kFloat);
  check_flat("first moment", first, n, at::kFloat);
  check_flat("second moment", second, n, at::kFloat);
  const at::NoGradGuard no_grad;
  GANTRY_CHECK(weight.is_cpu(), "adamw: split masters are implemented for the CPU only; use fp32 weights on {}",
               c10::str(weight.device()));
  const AdamwStep step = make_step(parameters);
  dispatch_raw(gradient.scalar_type(), [&]<class Raw>() {
    const AdamwSplitArgs<Raw> args{raw<Bf16>(weight), raw<std::int16_t>(remainder), raw_const<Raw>(gradient),
                                   raw<float>(first), raw<float>(second)};
    const auto kernel = GANTRY_ISA_SELECT(adamw_split<Raw>);
    at::parallel_for(0, n, kAdamwGrain, [&](std::int64_t begin, std::int64_t end) { kernel(args, step, begin, end); });
  });
}

std::pair<at::Tensor, at::Tensor> split_master(const at::Tensor& master) {
  check_flat("master", master, master.numel(), at::kFloat);
  at::Tensor weight = at::empty_like(master, master.options().dtype(at::kBFloat16));
  at::Tensor remainder = at::empty_like(master, master.options().dtype(at::kShort));
  const auto kernel = GANTRY_ISA_SELECT(split_master);
  at::parallel_for(0, master.numel(), kAdamwGrain, [&](std::int64_t begin, std::int64_t end) {
    kernel(raw_const<float>(master), raw<Bf16>(weight), raw<std::int16_t>(remainder), begin, end);
  });
  return {weight, remainder};
}

at::Tensor join_master(const at::Tensor& weight, const at::Tensor& remainder) {
  check_flat("weight", weight, weight.numel(), at::kBFloat16);
  check_flat("remainder", remainder, weight.numel(), at::kShort);
  at::Tensor master = at::empty_like(weight, weight.options().dtype(at::kFloat));
  const auto kernel = GANTRY_ISA_SELECT(join_master);
  at::parallel_for(0, weight.numel(), kAdamwGrain, [&](std::int64_t begin, std::int64_t end) {
    kernel(raw_const<Bf16>(weight), raw_const<std::int16_t>(remainder), raw<float>(master), begin, end);
  });
  return master;
}

double sum_of_squares(const at::Tensor& flat) {
  GANTRY_CHECK(flat.is_contiguous(), "sum_of_squares: expected a contiguous tensor, got strides {}",
               c10::str(flat.strides()));
  if (!has_raw_kernel(flat)) return flat.to(at::kDouble).square().sum().item<double>();
  constexpr std::int64_t kBlock = 1 << 20;  // fixed blocks: the order of summation never depends on scheduling
  const std::int64_t blocks = (flat.numel() + kBlock - 1) / kBlock;
  std::vector<double> partial(static_cast<std::size_t>(blocks));
  dispatch_raw(flat.scalar_type(), [&]<class Raw>() {
    const auto kernel = GANTRY_ISA_SELECT(sum_of_squares<Raw>);
    at::parallel_for(0, blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        partial[static_cast<std::size_t>(i)] =
            kernel(raw_const<Raw>(flat), i * kBlock, std::min(flat.numel(), (i + 1) * kBlock));
      }
    });
  });
  return std::accumulate(partial.begin(), partial.end(), 0.0);
}

}  // namespace gantry::kernels
