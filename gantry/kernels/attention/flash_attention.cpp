// The operators on separate queries, keys and values.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "gantry/kernels/attention/attention_internal.h"
#include "gantry/kernels/common.h"

namespace gantry::kernels {
namespace {

using namespace internal;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

at::Tensor last_contiguous(const at::Tensor& x) { return x.stride(3) == 1 ? x : x.contiguous(); }

FlashInputs inputs_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return {last_contiguous(q), last_contiguous(k), last_contiguous(v), k.size(1)};
}

bool floating(const at::Tensor& mask) { return mask.defined() && mask.is_floating_point(); }

// The differentiable gradients, for second derivatives: through aliases, so that q, k and v may be one tensor.
tensor_list reference_gradients(const tensor_list& saved, const at::Tensor& dout, AttentionOptions o) {
  tensor_list leaves{saved[0].view_as(saved[0]), saved[1].view_as(saved[1]), saved[2].view_as(saved[2])};
  if (floating(o.mask)) {
    o.mask = o.mask.view_as(o.mask);
    leaves.push_back(o.mask);
  }
  tensor_list wanted;
  for (at::Tensor& leaf : leaves) {
    if (leaf.requires_grad()) wanted.push_back(leaf);
  }
  const at::Tensor out = attention_reference(leaves[0], leaves[1], leaves[2], o);
  const tensor_list found = torch::autograd::grad({out}, wanted, {dout}, true, true, true);
  tensor_list gradients(5);
  std::size_t next = 0;
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    if (leaves[i].requires_grad()) gradients[i] = found[next++];
  }
  return gradients;
}

// kStored: probabilities are kept; else they are made again.
template <bool kStored>
struct AttentionFunction : torch::autograd::Function<AttentionFunction<kStored>> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::optional<at::Tensor>& mask, const AttentionOptions& options) {
    AttentionOptions o = options;
    if (mask) o.mask = *mask;
    const FlashInputs in = inputs_of(q, k, v);
    const FlashResult result = kStored ? run_stored(in, o) : run_flash(in, o, o.log_sums_in_output);
    ctx->save_for_backward({q, k, v, result.out, result.kept, o.mask, o.row_starts, o.key_mask});
    save_options(ctx, o);
    return result.out;
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
    const auto saved = ctx->get_saved_variables();
    AttentionOptions o = saved_options(ctx);
    o.mask = saved[5];
    o.row_starts = saved[6];
    o.key_mask = saved[7];
    if (at::GradMode::is_enabled()) return reference_gradients(saved, gradients[0], o);
    const FlashInputs in = inputs_of(saved[0], saved[1], saved[2]);
    FlashGradients to{at::empty(in.q.sizes(), in.q.options()), at::empty(in.k.sizes(), in.k.options()),
                      at::empty(in.v.sizes(), in.v.options()), at::Tensor()};
    if (floating(o.mask) && ctx->needs_input_grad(3)) {
      to.dscores = at::zeros({in.q.size(0), in.q.size(2), in.q.size(1), in.k_length}, in.q.options().dtype(at::kFloat));
    }
    const FlashResult result{saved[3], saved[4]};
    const at::Tensor dout = last_contiguous(gradients[0]);
    if (kStored) {
      run_stored_backward(in, result, dout, o, to);
    } else {
      run_flash_backward(in, result, dout, o, to);
    }
    at::Tensor dmask;
    if (to.dscores.defined()) dmask = at::sum_to(to.dscores, o.mask.sizes()).to(o.mask.scalar_type());
    return {to.dq, to.dk, to.dv, dmask, at::Tensor()};
  }
};

void check_tensors(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionOptions& o) {
  GANTRY_CHECK(q.dim() == 4 && k.dim() == 4 && v.dim() == 4,
               "attention: expected [B, T, heads, D], [B, S, kv_heads, D] twice, got {}, {}, {}", c10::str(q.sizes()),
               c10::str(k.sizes()), c10::str(v.sizes()));
  GANTRY_CHECK(k.sizes() == v.sizes() && q.size(0) == k.size(0) && q.size(3) == k.size(3),
               "attention: keys {} and values {} do not fit queries {}", c10::str(k.sizes()), c10::str(v.sizes()),
               c10::str(q.sizes()));
  GANTRY_CHECK(q.size(3) > 0 && k.size(2) > 0 && q.size(2) > 0 && q.size(2) % k.size(2) == 0,
               "attention: {} heads of {} cannot share {} key/value heads", q.size(2), q.size(3), k.size(2));
  GANTRY_CHECK(q.scalar_type() == k.scalar_type() && q.scalar_type() == v.scalar_type() && q.is_floating_point() &&
                   q.device() == k.device() && q.device() == v.device(),
               "attention: queries, keys and values must have one floating type and device, got {}, {}, {}",
               c10::toString(q.scalar_type()), c10::toString(k.scalar_type()), c10::toString(v.scalar_type()));
  const auto check_plane = [&](const char* name, const at::Tensor& plane, std::int64_t length, bool type_ok) {
    GANTRY_CHECK(!plane.defined() || (type_ok && plane.is_contiguous() && plane.dim() == 2 &&
                                      plane.size(0) == q.size(0) && plane.size(1) == length),
                 "attention: {} does not fit [{}, {}]", name, q.size(0), length);
  };
  const auto type = [](const at::Tensor& x) { return x.defined() ? x.scalar_type() : at::kInt; };
  check_plane("row_starts", o.row_starts, q.size(1), type(o.row_starts) == at::kInt);
  check_plane("key_mask", o.key_mask, k.size(1), type(o.key_mask) == at::kByte || type(o.key_mask) == at::kBool);
}

template <bool kStored>
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, AttentionOptions o) {
  check_tensors(q, k, v, o);
  o.heads = q.size(2);
  o.kv_heads = k.size(2);
  o.head_dim = q.size(3);
  check_options(o, q.size(0), q.size(1), k.size(1));
  if (!flash_applies(q, o)) return attention_reference(q, k, v, o);
  const bool tracked =
      q.requires_grad() || k.requires_grad() || v.requires_grad() || (o.mask.defined() && o.mask.requires_grad());
  if (at::GradMode::is_enabled() && tracked) {
    const std::optional<at::Tensor> mask = o.mask.defined() ? std::optional<at::Tensor>(o.mask) : std::nullopt;
    return AttentionFunction<kStored>::apply(q, k, v, mask, o);
  }
  const at::NoGradGuard no_grad;
  return run_flash(inputs_of(q, k, v), o).out;
}

}  // namespace

at::Tensor flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionOptions& o) {
  return attend<false>(q, k, v, o);
}

at::Tensor stored_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionOptions& o) {
  return attend<true>(q, k, v, o);
}

}  // namespace gantry::kernels
