#include "gantry/kernels/dropout/dropout.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <mutex>
#include <optional>

#include "gantry/kernels/common.h"
#include "gantry/kernels/cpu/philox_raw.h"
#include "gantry/kernels/dropout/dropout_raw.h"

namespace gantry::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// `bits` may be undefined; `bits_are_given` as in DropoutArgs.
at::Tensor run_dropout(const at::Tensor& x, const at::Tensor& bits, bool bits_are_given, const DropoutRule& rule) {
  at::Tensor y = at::empty_like(x);
  dispatch_raw(x.scalar_type(), [&]<class Raw>() {
    const DropoutArgs<Raw> args{.x = raw_const<Raw>(x),
                                .y = raw<Raw>(y),
                                .bits = raw<std::uint8_t>(bits),
                                .bits_are_given = bits_are_given,
                                .count = x.numel(),
                                .rule = rule};
    const auto kernel = GANTRY_ISA_SELECT(dropout_apply<Raw>);
    const std::int64_t blocks = (x.numel() + kDropoutBlock - 1) / kDropoutBlock;
    at::parallel_for(0, blocks, 16, [&](std::int64_t b, std::int64_t e) { kernel(args, b, e); });
  });
  return y;
}

at::Tensor bit_buffer(const at::Tensor& x) { return at::empty({(x.numel() + 7) / 8}, x.options().dtype(at::kByte)); }

// Linear in x with constant coefficients, so its gradient is the operator itself, to any order.
struct DropoutFunction : torch::autograd::Function<DropoutFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const std::optional<at::Tensor>& given_bits,
                            const DropoutRule& rule, DropoutMask mask) {
    at::Tensor bits = given_bits.value_or(at::Tensor());
    if (mask == DropoutMask::kBits && !bits.defined()) bits = bit_buffer(x);
    ctx->save_for_backward({bits});
    ctx->saved_data["seed"] = static_cast<std::int64_t>(rule.seed);
    ctx->saved_data["stream"] = static_cast<std::int64_t>(rule.stream);
    ctx->saved_data["threshold"] = static_cast<std::int64_t>(rule.threshold);
    return run_dropout(x.contiguous(), bits, given_bits.has_value(), rule);
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
    const at::Tensor bits = ctx->get_saved_variables()[0];
    const DropoutRule rule{.seed = static_cast<std::uint64_t>(ctx->saved_data["seed"].toInt()),
                           .stream = static_cast<std::uint64_t>(ctx->saved_data["stream"].toInt()),
                           .threshold = static_cast<std::uint32_t>(ctx->saved_data["threshold"].toInt())};
    if (!gradients[0].requires_grad() || !at::GradMode::is_enabled()) {
      return {run_dropout(gradients[0].contiguous(), bits, bits.defined(), rule), {}, {}, {}};
    }
    const auto mask = bits.defined() ? DropoutMask::kBits : DropoutMask::kReplay;
    return {apply(gradients[0], bits.defined() ? std::optional(bits) : std::nullopt, rule, mask), {}, {}, {}};
  }
};

}  // namespace

DropoutRule draw_dropout(double p, std::optional<at::Generator> generator) {
  GANTRY_CHECK(p >= 0 && p <= 1, "dropout: p is {}, expected 0 to 1", p);
  if (p == 0) return {};
  auto* source = at::get_generator_or_default<at::CPUGeneratorImpl>(generator, at::detail::getDefaultCPUGenerator());
  const std::lock_guard<std::mutex> lock(source->mutex_);
  return {.seed = source->random64(), .stream = 0, .threshold = dropout_threshold(p)};
}

at::Tensor dropout_keep_mask(at::IntArrayRef sizes, const DropoutRule& rule) {
  at::Tensor mask = at::empty(sizes, at::kBool);
  const std::int64_t count = mask.numel();
  std::vector<std::uint8_t> bits(static_cast<std::size_t>((count + 7) / 8));
  GANTRY_ISA_SELECT(dropout_keep_bits)(rule, 0, count, bits.data());
  bool* keep = mask.data_ptr<bool>();
  for (std::int64_t i = 0; i < count; ++i) keep[i] = ((bits[static_cast<std::size_t>(i / 8)] >> (i % 8)) & 1) != 0;
  return mask;
}

at::Tensor dropout_reference(const at::Tensor& x, const DropoutRule& rule) {
  const auto wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor keep = dropout_keep_mask(x.sizes(), rule).to(x.device(), wide);
  return (x.to(wide) * (keep * static_cast<double>(keep_scale(rule.threshold)))).to(x.scalar_type());
}

at::Tensor dropout(const at::Tensor& x, const DropoutRule& rule, DropoutMask mask) {
  GANTRY_CHECK(x.is_floating_point(), "dropout: input is {}, expected a floating-point type",
               c10::toString(x.scalar_type()));
  if (rule.threshold == 0) return x;
  if (!has_raw_kernel(x)) return dropout_reference(x, rule);
  if (at::GradMode::is_enabled() && x.requires_grad()) return DropoutFunction::apply(x, std::nullopt, rule, mask);
  return run_dropout(x.contiguous(), {}, false, rule);
}

}  // namespace gantry::kernels
