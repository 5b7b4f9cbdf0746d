#include "gantry/kernels/attention/attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "gantry/kernels/attention/attention_internal.h"
#include "gantry/kernels/attention/flash_raw.h"
#include "gantry/kernels/common.h"
#include "gantry/kernels/once_differentiable.h"
#include "gantry/kernels/rope/rope.h"

namespace gantry::kernels {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

using internal::effective_scale;
using internal::flash_applies;
using internal::FlashResult;
using internal::run_flash;
using internal::run_flash_backward;
using internal::run_stored;
using internal::run_stored_backward;

// Views [B, T, heads, head_dim] into packed projections.
struct Unpacked {
  at::Tensor q, k, v;
};

Unpacked unpack(const at::Tensor& qkv, const AttentionOptions& o) {
  const at::Tensor heads = qkv.view({qkv.size(0), qkv.size(1), o.heads + 2 * o.kv_heads, o.head_dim});
  return {heads.narrow(2, 0, o.heads), heads.narrow(2, o.heads, o.kv_heads),
          heads.narrow(2, o.heads + o.kv_heads, o.kv_heads)};
}

void rotate(const at::Tensor& qkv, const RopeTables& rope, const at::Tensor& positions, const AttentionOptions& o,
            bool inverse) {
  if (!rope.cosine.defined()) return;
  const at::Tensor rows = qkv.view({-1, o.heads + 2 * o.kv_heads, o.head_dim});
  rope_(rows.narrow(1, 0, o.heads + o.kv_heads), positions.reshape({-1}), rope.cosine, rope.sine, inverse);
}

// Tables, positions and masks carry no gradient and may be undefined, which autograd's argument scan does not accept;
// they travel as one plain argument.
struct PackedContext {
  RopeTables rope;
  at::Tensor positions;
  AttentionOptions options;
};

// kStored: probabilities are kept; else they are made again.
template <bool kStored>
struct PackedAttentionFunction : torch::autograd::Function<PackedAttentionFunction<kStored>> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& qkv, const PackedContext& context) {
    const AttentionOptions& o = context.options;
    rotate(qkv, context.rope, context.positions, o, false);
    const Unpacked x = unpack(qkv, o);
    const internal::FlashInputs in{x.q, x.k, x.v, x.k.size(1)};
    const FlashResult result = kStored ? run_stored(in, o) : run_flash(in, o, o.log_sums_in_output);
    ctx->save_for_backward({qkv.detach(), result.out, result.kept, context.rope.cosine, context.rope.sine,
                            context.positions, o.row_starts, o.key_mask, o.mask});
    internal::save_options(ctx, o);
    return result.out.view({qkv.size(0), qkv.size(1), -1});
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
    const at::Tensor dqkv = first_order(ctx, gradients[0]);
    return once_differentiable("packed_attention", {dqkv, {}});
  }

  static at::Tensor first_order(AutogradContext* ctx, const at::Tensor& gradient) {
    const at::NoGradGuard no_grad;
    const auto saved = ctx->get_saved_variables();
    AttentionOptions o = internal::saved_options(ctx);
    o.row_starts = saved[6];
    o.key_mask = saved[7];
    o.mask = saved[8];
    const Unpacked x = unpack(saved[0], o);
    const at::Tensor dqkv = at::empty_like(saved[0]);
    const Unpacked d = unpack(dqkv, o);
    const at::Tensor dout = gradient.contiguous().view(saved[1].sizes());
    const internal::FlashInputs in{x.q, x.k, x.v, x.k.size(1)};
    const internal::FlashGradients to{d.q, d.k, d.v, at::Tensor()};
    if (kStored) {
      run_stored_backward(in, {saved[1], saved[2]}, dout, o, to);
    } else {
      run_flash_backward(in, {saved[1], saved[2]}, dout, o, to);
    }
    rotate(dqkv, {saved[3], saved[4]}, saved[5], o, true);
    return dqkv;
  }
};

void check_attention_inputs(const at::Tensor& qkv, const RopeTables& rope, const at::Tensor& positions,
                            const AttentionOptions& o) {
  GANTRY_CHECK(o.heads > 0 && o.kv_heads > 0 && o.heads % o.kv_heads == 0,
               "attention: {} heads cannot share {} key/value heads", o.heads, o.kv_heads);
  GANTRY_CHECK(qkv.dim() == 3 && qkv.size(2) == (o.heads + 2 * o.kv_heads) * o.head_dim && qkv.is_contiguous(),
               "attention: expected contiguous packed projections [B, T, {}], got {}",
               (o.heads + 2 * o.kv_heads) * o.head_dim, c10::str(qkv.sizes()));
  if (rope.cosine.defined()) {
    GANTRY_CHECK(rope.sine.defined(), "attention: got a table of cosines without one of sines");
    for (const at::Tensor& table : {rope.cosine, rope.sine}) {
      GANTRY_CHECK(table.dim() == 2 && table.size(1) * 2 == o.head_dim && table.is_contiguous() &&
                       table.scalar_type() == at::kFloat && table.sizes() == rope.cosine.sizes(),
                   "attention: expected two contiguous Float tables [positions, {}], got {} {}", o.head_dim / 2,
                   c10::toString(table.scalar_type()), c10::str(table.sizes()));
    }
    GANTRY_CHECK(
        positions.defined() && positions.scalar_type() == at::kLong && positions.numel() == qkv.size(0) * qkv.size(1),
        "attention: expected {} int64 positions, got {} {}", qkv.size(0) * qkv.size(1),
        positions.defined() ? positions.numel() : 0,
        positions.defined() ? c10::toString(positions.scalar_type()) : "undefined");
  }
  const auto check_mask = [&](const char* name, const at::Tensor& mask, bool type_ok) {
    GANTRY_CHECK(!mask.defined() || (type_ok && mask.is_contiguous() && mask.dim() == 2 &&
                                     mask.size(0) == qkv.size(0) && mask.size(1) == qkv.size(1)),
                 "attention: {} does not fit [{}, {}]", name, qkv.size(0), qkv.size(1));
  };
  check_mask("row_starts", o.row_starts, o.row_starts.defined() && o.row_starts.scalar_type() == at::kInt);
  check_mask("key_mask", o.key_mask,
             o.key_mask.defined() && (o.key_mask.scalar_type() == at::kByte || o.key_mask.scalar_type() == at::kBool));
  GANTRY_CHECK(!o.mask.defined() || !o.mask.requires_grad(),
               "attention: a mask that wants a gradient needs flash_attention");
}

// Differentiable rotation for the reference path.
at::Tensor rotated(const at::Tensor& x, const RopeTables& rope, const at::Tensor& positions) {
  if (!rope.cosine.defined()) return x;
  const at::Tensor flat = positions.reshape({-1});
  const auto shape = std::vector<std::int64_t>{x.size(0), x.size(1), 1, rope.cosine.size(1)};
  const at::Tensor c = rope.cosine.index_select(0, flat).view(shape), s = rope.sine.index_select(0, flat).view(shape);
  const auto halves = x.chunk(2, -1);
  return at::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1).to(x.scalar_type());
}

bool floating_mask(const AttentionOptions& o) { return o.mask.defined() && o.mask.is_floating_point(); }

// Which keys each query sees, broadcastable to the scores [B, H, T, S].
at::Tensor visible_keys(const AttentionOptions& o, const at::Tensor& scores) {
  const std::int64_t t = scores.size(2), s = scores.size(3);
  at::Tensor seen = at::ones({1, 1, t, s}, scores.options().dtype(at::kBool));
  if (o.causal) seen = seen.tril(s - t);
  if (o.row_starts.defined()) {
    seen = seen & at::arange(s, o.row_starts.options()).view({1, 1, 1, s}).ge(o.row_starts.unsqueeze(1).unsqueeze(3));
  }
  if (o.key_mask.defined()) seen = seen & o.key_mask.to(at::kBool).view({-1, 1, 1, s});
  if (!o.mask.defined()) return seen;
  return seen & (floating_mask(o) ? ~o.mask.detach().le(-1e30) : o.mask);
}

}  // namespace

at::Tensor attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const AttentionOptions& o) {
  const auto wide = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const std::int64_t group = q.size(2) / k.size(2), t = q.size(1), s = k.size(1);
  const auto heads_first = [&](const at::Tensor& x, std::int64_t repeat) {
    return x.to(wide).repeat_interleave(repeat, 2).transpose(1, 2);
  };
  at::Tensor scores = at::matmul(heads_first(q, 1), heads_first(k, group).transpose(2, 3)) * effective_scale(o);
  at::Tensor seen = visible_keys(o, scores);
  if (floating_mask(o)) scores = scores + o.mask.to(wide);
  // A row that sees nothing would be NaN after softmax, and so would its gradient; it is defined as zero.
  const at::Tensor blind = ~seen.any(-1, true);
  scores = scores.masked_fill(~seen, -std::numeric_limits<double>::infinity()).masked_fill(blind, 0.0);
  at::Tensor p = at::softmax(scores, -1).masked_fill(blind, 0.0);
  if (o.dropout.threshold != 0) {
    const at::Tensor keep = attention_keep_mask(o.dropout, q.size(0), q.size(2), t, s).to(q.device(), wide);
    p = p * (keep * static_cast<double>(keep_scale(o.dropout.threshold)));
  }
  return at::matmul(p, heads_first(v, group)).transpose(1, 2).to(q.scalar_type());
}

at::Tensor packed_attention(const at::Tensor& qkv, const RopeTables& rope, const at::Tensor& positions,
                            const AttentionOptions& options, AttentionKeep keep) {
  check_attention_inputs(qkv, rope, positions, options);
  internal::check_options(options, qkv.size(0), qkv.size(1), qkv.size(1));
  if (keep == AttentionKeep::kAll || !flash_applies(qkv, options)) {
    const Unpacked x = unpack(qkv, options);
    const at::Tensor q = rotated(x.q, rope, positions), k = rotated(x.k, rope, positions);
    return attention_reference(q, k, x.v, options).reshape({qkv.size(0), qkv.size(1), -1});
  }
  if (at::GradMode::is_enabled() && qkv.requires_grad()) {
    const PackedContext context{rope, positions, options};
    return keep == AttentionKeep::kProbabilities ? PackedAttentionFunction<true>::apply(qkv, context)
                                                 : PackedAttentionFunction<false>::apply(qkv, context);
  }
  const at::NoGradGuard no_grad;
  rotate(qkv, rope, positions, options, false);
  const Unpacked x = unpack(qkv, options);
  return run_flash({x.q, x.k, x.v, x.k.size(1)}, options).out.view({qkv.size(0), qkv.size(1), -1});
}

namespace {

void check_cache(const at::Tensor& qkv, const KvSlices& cache, std::int64_t length, const at::Tensor& starts,
                 const AttentionOptions& o) {
  GANTRY_CHECK(!o.row_starts.defined() && !o.key_mask.defined() && !o.mask.defined() && o.dropout.threshold == 0,
               "attention: row_starts, masks and dropout do not apply to a cache; pad on the left and give starts");
  for (const at::Tensor& slice : {cache.keys, cache.values}) {
    GANTRY_CHECK(
        slice.dim() == 4 && slice.size(2) == o.kv_heads && slice.size(3) == o.head_dim && slice.is_contiguous() &&
            slice.scalar_type() == qkv.scalar_type() && slice.sizes() == cache.keys.sizes(),
        "attention: expected contiguous {} caches [B, capacity, {}, {}], got {} {}", c10::toString(qkv.scalar_type()),
        o.kv_heads, o.head_dim, c10::toString(slice.scalar_type()), c10::str(slice.sizes()));
  }
  GANTRY_CHECK(length >= 0 && length + qkv.size(1) <= cache.keys.size(1) && cache.keys.size(0) == qkv.size(0),
               "attention: {} + {} tokens of {} sequences do not fit a cache of {} x {}", length, qkv.size(1),
               qkv.size(0), cache.keys.size(0), cache.keys.size(1));
  if (!starts.defined()) return;
  GANTRY_CHECK(
      starts.scalar_type() == at::kLong && starts.dim() == 1 && starts.size(0) == qkv.size(0) && starts.is_contiguous(),
      "attention: starts must be {} int64 positions, got {} {}", qkv.size(0), c10::toString(starts.scalar_type()),
      c10::str(starts.sizes()));
  for (std::int64_t b = 0; starts.is_cpu() && b < starts.size(0); ++b) {
    const std::int64_t start = raw_const<std::int64_t>(starts)[b];
    GANTRY_CHECK(start >= 0, "attention: sequence {} starts at position {}, expected 0 or more", b, start);
  }
}

}  // namespace

at::Tensor cached_attention(const at::Tensor& qkv, const RopeTables& rope, const at::Tensor& positions,
                            const KvSlices& cache, std::int64_t length, const at::Tensor& starts,
                            const AttentionOptions& options) {
  check_attention_inputs(qkv, rope, positions, options);
  check_cache(qkv, cache, length, starts, options);
  const std::int64_t tokens = qkv.size(1), total = length + tokens;
  const at::NoGradGuard no_grad;
  constexpr std::int64_t kDecodeTokens = 4;
  if (has_raw_kernel(qkv) && tokens <= kDecodeTokens) {
    return internal::decode_step(qkv, rope, positions, cache, length, starts, options);
  }
  rotate(qkv, rope, positions, options, false);
  const Unpacked x = unpack(qkv, options);
  cache.keys.narrow(1, length, tokens).copy_(x.k);
  cache.values.narrow(1, length, tokens).copy_(x.v);
  AttentionOptions ranged = options;
  ranged.causal = true;
  if (starts.defined()) {
    ranged.row_starts = starts.to(at::kInt).unsqueeze(1).expand({qkv.size(0), tokens}).contiguous();
  }
  const at::Tensor out = flash_applies(qkv, options) ? run_flash({x.q, cache.keys, cache.values, total}, ranged).out
                                                     : attention_reference(x.q, cache.keys.narrow(1, 0, total),
                                                                           cache.values.narrow(1, 0, total), ranged);
  return out.reshape({qkv.size(0), tokens, -1});
}

}  // namespace gantry::kernels
