// Attention that keeps log-sums (flash) or probabilities with the dropout mask in their signs (stored).
#include <torch/library.h>

#include <tuple>

#include "gantry/kernels/attention/attention_internal.h"
#include "gantry/kernels/common.h"
#include "python/ops.h"

namespace gantry::python {
namespace {

using namespace kernels;
using kernels::internal::FlashGradients;
using kernels::internal::FlashInputs;
using kernels::internal::FlashResult;

at::Tensor last_contiguous(const at::Tensor& x) { return x.stride(3) == 1 ? x : x.contiguous(); }

void check_attention_inputs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const AttentionOptions& options) {
  GANTRY_CHECK(q.dim() == 4 && k.dim() == 4 && k.sizes() == v.sizes() && q.size(0) == k.size(0) &&
                   q.size(3) == k.size(3) && q.numel() > 0 && k.numel() > 0 && q.size(2) % k.size(2) == 0,
               "attention: expected [B, T, heads, D] and twice [B, S, kv_heads, D], not empty, got {}, {}, {}",
               c10::str(q.sizes()), c10::str(k.sizes()), c10::str(v.sizes()));
  GANTRY_CHECK(has_raw_kernel(q) && k.scalar_type() == q.scalar_type() && v.scalar_type() == q.scalar_type() &&
                   q.size(3) % 16 == 0,
               "attention: expected one type, float32 or bfloat16, and a head size that is a multiple of 16, got {}, "
               "{}, {} and {}",
               c10::toString(q.scalar_type()), c10::toString(k.scalar_type()), c10::toString(v.scalar_type()),
               q.size(3));
  if (!options.key_mask.defined()) return;
  GANTRY_CHECK(options.key_mask.scalar_type() == at::kBool && options.key_mask.dim() == 2 &&
                   options.key_mask.size(0) == k.size(0) && options.key_mask.size(1) == k.size(1),
               "attention: key_mask {} {} does not fit [{}, {}]", c10::toString(options.key_mask.scalar_type()),
               c10::str(options.key_mask.sizes()), k.size(0), k.size(1));
}

struct Extras {
  const OptionalTensor &mask, &key_mask, &seed;
  double p, scale;
  bool causal;
};

AttentionOptions options_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Extras& extras) {
  AttentionOptions options{.scale = extras.scale, .causal = extras.causal};
  options.mask = value_or_undefined(extras.mask);
  if (extras.key_mask.has_value()) options.key_mask = extras.key_mask->contiguous();
  options.dropout = rule_of(extras.seed, extras.p);
  check_attention_inputs(q, k, v, options);
  options.heads = q.size(2);
  options.kv_heads = k.size(2);
  options.head_dim = q.size(3);
  kernels::internal::check_options(options, q.size(0), q.size(1), k.size(1));
  return options;
}

std::tuple<at::Tensor, at::Tensor> attention_op(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                const OptionalTensor& mask, const OptionalTensor& key_mask,
                                                const OptionalTensor& seed, double p, double scale, bool causal,
                                                std::string_view keep) {
  const BelowAutograd below;
  GANTRY_CHECK(keep == "log-sums" || keep == "probabilities" || keep == "int8",
               "attention: keep is '{}', expected log-sums, probabilities or int8", keep);
  const AttentionOptions options = options_of(q, k, v, {mask, key_mask, seed, p, scale, causal});
  const FlashInputs in{last_contiguous(q), last_contiguous(k), last_contiguous(v), k.size(1)};
  const bool stored = keep == "probabilities";
  const FlashResult result =
      stored ? kernels::internal::run_stored(in, options) : kernels::internal::run_flash(in, options);
  return {result.out, result.kept};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> attention_backward_op(
    const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& out,
    const at::Tensor& kept, const OptionalTensor& mask, const OptionalTensor& key_mask, const OptionalTensor& seed,
    double p, double scale, bool causal, bool stored, bool mask_gradient) {
  const BelowAutograd below;
  const AttentionOptions options = options_of(q, k, v, {mask, key_mask, seed, p, scale, causal});
  GANTRY_CHECK(out.sizes() == q.sizes() && dout.sizes() == q.sizes() && kept.is_contiguous(),
               "attention_backward: output {} and gradient {} do not fit queries {}", c10::str(out.sizes()),
               c10::str(dout.sizes()), c10::str(q.sizes()));
  const std::int64_t row = stored ? k.size(1) : 1;
  GANTRY_CHECK(kept.numel() == q.size(0) * q.size(1) * q.size(2) * row &&
                   kept.scalar_type() == (stored ? q.scalar_type() : at::kFloat) &&
                   out.scalar_type() == q.scalar_type() && dout.scalar_type() == q.scalar_type(),
               "attention_backward: {} {} does not fit queries {} and keys {}", c10::toString(kept.scalar_type()),
               c10::str(kept.sizes()), c10::str(q.sizes()), c10::str(k.sizes()));
  const FlashInputs in{last_contiguous(q), last_contiguous(k), last_contiguous(v), k.size(1)};
  const auto like = [](const at::Tensor& x) { return at::empty(x.sizes(), x.options()); };
  FlashGradients to{like(q), like(k), like(v), at::Tensor()};
  mask_gradient = mask_gradient && mask.has_value() && mask->is_floating_point();
  if (mask_gradient)
    to.dscores = at::zeros({q.size(0), q.size(2), q.size(1), k.size(1)}, q.options().dtype(at::kFloat));
  const FlashResult result{last_contiguous(out), kept};
  if (stored) {
    kernels::internal::run_stored_backward(in, result, last_contiguous(dout), options, to);
  } else {
    kernels::internal::run_flash_backward(in, result, last_contiguous(dout), options, to);
  }
  at::Tensor dmask = absent(q);
  if (mask_gradient) dmask = at::sum_to(to.dscores, mask->sizes()).to(mask->scalar_type()).contiguous();
  return {to.dq, to.dk, to.dv, dmask};
}

}  // namespace
}  // namespace gantry::python

TORCH_LIBRARY_IMPL(gantry, CPU, library) {
  library.impl("attention", gantry::python::attention_op);
  library.impl("attention_backward", gantry::python::attention_backward_op);
}
