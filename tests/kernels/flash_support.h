#pragma once
// Both forms of attention on separate tensors, and what their tests compare them with.
#include <cmath>

#include "gantry/kernels/attention/attention.h"
#include "tests/kernels/torch_support.h"

namespace gantry::kernels::testing {

inline constexpr std::int64_t kFlashBatch = 2;
inline const DropoutRule kRule{123456789, 7, dropout_threshold(0.2)};

using Attention = at::Tensor (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&, const AttentionOptions&);

struct Form {
  const char* name;
  Attention run;
};
inline const Form kForms[] = {{"flash", flash_attention}, {"stored", stored_attention}};

template <class Body>
void for_forms(Body body) {
  for (const Form& form : kForms) {
    SCOPED_TRACE(form.name);
    body(form.run);
  }
}

/// The fourth input, if there is one, is an additive mask.
inline Op with(Attention attention, const AttentionOptions& options) {
  return [attention, options](const variable_list& in) -> variable_list {
    AttentionOptions o = options;
    if (in.size() > 3) o.mask = in[3];
    return {attention(in[0], in[1], in[2], o)};
  };
}

inline variable_list flash_inputs(std::int64_t t, std::int64_t s, std::int64_t dim, std::int64_t heads = 6,
                                  std::int64_t kv = 2) {
  return {normal({kFlashBatch, t, heads, dim}, 1, 1.2), normal({kFlashBatch, s, kv, dim}, 2),
          normal({kFlashBatch, s, kv, dim}, 3)};
}

inline AttentionOptions flash_options(const variable_list& in, bool causal, const DropoutRule& rule) {
  return {
      .heads = in[0].size(2), .kv_heads = in[1].size(2), .head_dim = in[0].size(3), .causal = causal, .dropout = rule};
}

/// What torch's math path does, in the type of its inputs, with the replayed mask.
inline at::Tensor eager(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionOptions& o) {
  const auto heads = [&](const at::Tensor& x) { return x.repeat_interleave(q.size(2) / x.size(2), 2).transpose(1, 2); };
  at::Tensor scores = at::matmul(heads(q), heads(k).transpose(2, 3)) / std::sqrt(static_cast<double>(q.size(3)));
  const std::int64_t t = q.size(1), s = k.size(1);
  if (o.causal) scores = scores.masked_fill(~at::ones({t, s}, at::kBool).tril(s - t), -INFINITY);
  if (o.mask.defined() && o.mask.scalar_type() == at::kBool) scores = scores.masked_fill(~o.mask, -INFINITY);
  if (o.mask.defined() && o.mask.is_floating_point()) scores = scores + o.mask;
  const at::Tensor keep = attention_keep_mask(o.dropout, q.size(0), q.size(2), t, s).to(q.scalar_type());
  const at::Tensor p = at::softmax(scores, -1) * keep * static_cast<double>(keep_scale(o.dropout.threshold));
  return at::matmul(p, heads(v)).transpose(1, 2);
}

/// Both forms: within 1e-5 of doubles in fp32, within twice the error of torch's math path in bf16.
inline void expect_forms(const variable_list& in, const AttentionOptions& options) {
  for_forms([&](Attention attention) {
    const Op op = with(attention, options);
    const variable_list weights = output_weights(op, in);
    const Traced exact = run(with(attention_reference, options), in, at::kDouble, weights);
    const Traced plain = run(with(eager, options), in, at::kBFloat16, weights);
    expect_errors(run(op, in, at::kFloat, weights), exact, [](std::size_t) { return 1e-5; });
    expect_errors(run(op, in, at::kBFloat16, weights), exact, [&](std::size_t i) {
      const double error = i == 0 ? error_of(plain.outputs[0], exact.outputs[0])
                                  : error_of(plain.gradients[i - 1], exact.gradients[i - 1]);
      // With few keys the rounding of the output, which the gradient of the scores is made of, averages out less.
      return std::max(2 * error, (in[1].size(1) < 8 ? 3 : 1) * 0x1p-8);
    });
  });
}

}  // namespace gantry::kernels::testing
