// Flash attention whose output carries the log-sums in its last bits (AttentionOptions::log_sums_in_output).
#include <tuple>

#include "tests/kernels/flash_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

AttentionOptions in_output(AttentionOptions options) {
  options.log_sums_in_output = true;
  return options;
}

std::int64_t ulps(const at::Tensor& a, const at::Tensor& b) {
  const auto bits = [](const at::Tensor& x) { return x.contiguous().view(at::kInt).to(at::kLong); };
  return (bits(a) - bits(b)).abs().max().item<std::int64_t>();
}

TEST(FlashAttentionInOutput, ValuesMoveByAnUlpAndGradientsMatchTheReference) {
  for (const std::int64_t dim : {32, 64, 80}) {
    SCOPED_TRACE(dim);
    variable_list in = flash_inputs(50, 70, dim);
    const AttentionOptions o = flash_options(in, true, kRule);
    expect_forms(in, in_output(o));
    in.push_back(normal({6, 1, 70}, 4));
    const Op plain = with(flash_attention, o), carried = with(flash_attention, in_output(o));
    const variable_list weights = output_weights(plain, in);
    const Traced beside = run(plain, in, at::kFloat, weights), inside = run(carried, in, at::kFloat, weights);
    EXPECT_EQ(ulps(beside.outputs[0].narrow(3, 0, 32), inside.outputs[0].narrow(3, 0, 32)), 1);
    EXPECT_TRUE(at::equal(beside.outputs[0].narrow(3, 32, dim - 32), inside.outputs[0].narrow(3, 32, dim - 32)));
    for (std::size_t i = 0; i < in.size(); ++i) {
      EXPECT_LT(error_of(inside.gradients[i], beside.gradients[i].to(at::kDouble)), 2e-6) << i;
    }
  }
}

TEST(FlashAttentionInOutput, NothingIsKeptButTheOutputWhereItFits) {
  for (const auto& [dim, type, per_row] : {std::tuple<std::int64_t, at::ScalarType, std::int64_t>{32, at::kFloat, 0},
                                           {64, at::kFloat, 0},
                                           {16, at::kFloat, 4},
                                           {32, at::kBFloat16, 4}}) {
    variable_list in = flash_inputs(50, 70, dim);
    for (at::Tensor& x : in) x = x.to(type).requires_grad_();
    const AttentionOptions o = flash_options(in, true, kRule);
    const std::int64_t kept = kept_beside([&] { return flash_attention(in[0], in[1], in[2], in_output(o)); });
    EXPECT_EQ(kept, kFlashBatch * 50 * 6 * per_row) << dim << " " << c10::toString(type);
    // The projections are there anyway.
    const std::int64_t packed = kept_beside([&] {
      const at::Tensor heads = at::cat({in[0], in[0].narrow(2, 0, 4)}, 2).flatten(2);
      return packed_attention(heads, {}, {}, in_output({.heads = 6, .kv_heads = 2, .head_dim = dim}));
    });
    const std::int64_t qkv = kFlashBatch * 50 * 10 * dim * static_cast<std::int64_t>(c10::elementSize(type));
    EXPECT_EQ(packed - qkv, kFlashBatch * 50 * 6 * per_row) << dim << " " << c10::toString(type);
  }
}

TEST(FlashAttentionInOutput, WithoutGradientsAndWithProbabilitiesNothingChanges) {
  variable_list in = flash_inputs(20, 20, 32);
  for (at::Tensor& x : in) x = x.to(at::kFloat);
  const AttentionOptions o = flash_options(in, true, {});
  const at::Tensor plain = flash_attention(in[0], in[1], in[2], o);
  EXPECT_TRUE(at::equal(flash_attention(in[0], in[1], in[2], in_output(o)), plain));
  const at::Tensor q = in[0].clone().requires_grad_();
  EXPECT_FALSE(at::equal(flash_attention(q, in[1], in[2], in_output(o)), plain)) << "it was not in force";
  EXPECT_TRUE(at::equal(stored_attention(q, in[1], in[2], in_output(o)), stored_attention(q, in[1], in[2], o)));
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(at::equal(flash_attention(q, in[1], in[2], in_output(o)), plain));
}

TEST(FlashAttentionInOutput, BlindRowsStayZeroWithZeroGradients) {
  variable_list in = flash_inputs(50, 70, 32);
  in.push_back(at::zeros({2, 1, 50, 70}, at::kDouble));
  in[3][1].select(1, 3).fill_(-INFINITY);  // query 3 of sequence 1 sees nothing
  AttentionOptions o = in_output(flash_options(in, false, kRule));
  o.key_mask = at::ones({2, 70}, at::kByte);
  o.key_mask[0].zero_();  // sequence 0 sees nothing at all
  const Op op = with(flash_attention, o);
  const Traced r = run(op, in, at::kFloat, output_weights(op, in));
  EXPECT_EQ(r.outputs[0][0].abs().max().item<double>(), 0.0);
  EXPECT_EQ(r.outputs[0][1][3].abs().max().item<double>(), 0.0);
  EXPECT_GT(r.outputs[0][1][4].abs().max().item<double>(), 0.0);
  EXPECT_EQ(r.gradients[0][1][3].abs().max().item<double>(), 0.0);
  for (const at::Tensor& gradient : r.gradients) {
    EXPECT_TRUE(gradient.isfinite().all().item<bool>());
    EXPECT_EQ(gradient[0].abs().max().item<double>(), 0.0);
  }
}

// Values of zero: the output is zero, but the queries see keys, and the gradients of the values say so.
TEST(FlashAttentionInOutput, ZeroOutputsOfSeeingRowsStillGiveGradients) {
  variable_list in = flash_inputs(20, 30, 32);
  in[2].zero_();
  const Op op = with(flash_attention, in_output(flash_options(in, false, {})));
  const variable_list weights = output_weights(op, in);
  const Traced exact = run(with(attention_reference, flash_options(in, false, {})), in, at::kDouble, weights);
  const Traced ours = run(op, in, at::kFloat, weights);
  EXPECT_LE(ours.outputs[0].abs().max().item<double>(), 1.2e-38);
  EXPECT_LT(error_of(ours.gradients[2], exact.gradients[2]), 1e-5);
}

TEST(FlashAttentionInOutput, NanAndInfinityStayAndSpread) {
  for (std::size_t poisoned = 0; poisoned < 3; ++poisoned) {
    for (const float value : {NAN, INFINITY}) {
      for (const std::int64_t at : {3, 40}) {  // in a column that carries, and in one that does not
        variable_list in = flash_inputs(20, 20, 48, 2, 2);
        for (at::Tensor& x : in) x = x.to(at::kFloat);
        in[poisoned][1][5][1][at] = value;
        const AttentionOptions o = flash_options(in, false, {});
        const Op plain = with(flash_attention, o), carried = with(flash_attention, in_output(o));
        const variable_list weights{at::ones({2, 20, 2, 48}, at::kDouble)};
        const Traced expected = run(plain, in, at::kFloat, weights), got = run(carried, in, at::kFloat, weights);
        SCOPED_TRACE(::testing::Message() << "input " << poisoned << " with " << value << " at " << at);
        EXPECT_TRUE(at::equal(got.outputs[0].isnan(), expected.outputs[0].isnan()));
        EXPECT_TRUE(at::equal(got.outputs[0].isinf(), expected.outputs[0].isinf()));
        for (std::size_t i = 0; i < 3; ++i) {
          const at::Tensor lost = expected.gradients[i].isfinite().logical_not();
          EXPECT_TRUE(got.gradients[i].isfinite().logical_not().logical_or(lost.logical_not()).all().item<bool>());
          EXPECT_TRUE(got.gradients[i][0].isfinite().all().item<bool>()) << "the other sequence";
        }
      }
    }
  }
}

}  // namespace
}  // namespace gantry::kernels
