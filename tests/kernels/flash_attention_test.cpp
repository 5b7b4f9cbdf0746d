// Attention on separate tensors, with masks and dropout, in both of its forms, against the composition of ATen
// operators in fp64 under the same dropout mask.
#include "tests/kernels/flash_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

TEST(FlashAttention, LengthsAroundTheTilesWithAndWithoutDropout) {
  for (const std::int64_t length : {2, 9, 47, 49, 64, 130}) {
    for (const bool causal : {false, true}) {
      for (const DropoutRule& rule : {DropoutRule{}, kRule}) {
        SCOPED_TRACE(::testing::Message() << length << ", causal " << causal << ", " << rule.threshold);
        const variable_list in = flash_inputs(length, length, 16);
        expect_forms(in, flash_options(in, causal, rule));
      }
    }
  }
}

TEST(FlashAttention, HeadSizesGroupsAndOtherNumbersOfKeys) {
  for (const std::int64_t dim : {64, 80, 24, 6}) {  // the last two take the reference
    SCOPED_TRACE(dim);
    const variable_list in = flash_inputs(50, 70, dim, 3, dim == 80 ? 3 : 1);
    expect_forms(in, flash_options(in, true, kRule));
  }
}

TEST(FlashAttention, AnAdditiveMaskOfAnyBroadcastGetsItsGradient) {
  for (const auto& shape : std::vector<std::vector<std::int64_t>>{
           {2, 6, 20, 30}, {6, 20, 30}, {2, 1, 1, 30}, {1, 6, 1, 30}, {20, 30}, {30}}) {
    SCOPED_TRACE(::testing::Message() << shape);
    variable_list in = flash_inputs(20, 30, 16);
    in.push_back(normal(shape, 4));
    expect_forms(in, flash_options(in, false, kRule));
  }
}

TEST(FlashAttention, OneAddendForAllKeysChangesNothingAndItsGradientIsZero) {
  const variable_list in = flash_inputs(20, 30, 16);
  const AttentionOptions o = flash_options(in, false, kRule);
  for (const auto& shape : std::vector<std::vector<std::int64_t>>{{1, 6, 20, 1}, {2, 1, 1, 1}, {1}, {}}) {
    SCOPED_TRACE(::testing::Message() << shape);
    variable_list masked = in;
    masked.push_back(normal(shape, 4));
    for_forms([&](Attention attention) {
      const Op op = with(attention, o);
      const Traced r = run(op, masked, at::kFloat, output_weights(op, masked));
      EXPECT_LT(error_of(r.outputs[0], op(in)[0]), 1e-5);
      EXPECT_EQ(r.gradients[3].sizes(), masked[3].sizes());
      EXPECT_LT(r.gradients[3].abs().max().item<double>(), 2e-3);
    });
  }
}

TEST(FlashAttention, BooleanMasksHideKeys) {
  const variable_list in = flash_inputs(40, 66, 32);
  for (const auto& shape : std::vector<std::vector<std::int64_t>>{{2, 6, 40, 66}, {2, 1, 40, 66}, {66}, {40, 1}}) {
    SCOPED_TRACE(::testing::Message() << shape);
    AttentionOptions o = flash_options(in, false, kRule);
    o.mask = normal(shape, 4).gt(-0.7);
    expect_forms(in, o);
    // The same as minus infinity, and as what transformers adds.
    for (const float hidden : {-INFINITY, std::numeric_limits<float>::lowest()}) {
      AttentionOptions added = o;
      added.mask = at::zeros(shape, at::kFloat).masked_fill(~o.mask, hidden);
      for_forms([&](Attention attention) {
        const variable_list single{in[0].to(at::kFloat), in[1].to(at::kFloat), in[2].to(at::kFloat)};
        EXPECT_TRUE(at::equal(with(attention, added)(single)[0], with(attention, o)(single)[0]));
      });
    }
  }
}

TEST(FlashAttention, ReferenceAgreesWithTorchUnderMasks) {
  const variable_list in = flash_inputs(12, 12, 16, 4, 4);
  const auto heads = [](const at::Tensor& x) { return x.transpose(1, 2); };
  for (const at::Tensor& mask : {normal({2, 4, 12, 12}, 5), normal({2, 1, 12, 12}, 5).gt(-0.5)}) {
    AttentionOptions o = flash_options(in, false, {});
    o.mask = mask;
    const at::Tensor expected = at::scaled_dot_product_attention(heads(in[0]), heads(in[1]), heads(in[2]), mask);
    EXPECT_LT(error_of(attention_reference(in[0], in[1], in[2], o).transpose(1, 2), expected), 1e-12);
  }
}

TEST(FlashAttention, ReferenceDropsWhatTheMaskSays) {
  const variable_list in = flash_inputs(12, 20, 16, 4, 4);
  const AttentionOptions o = flash_options(in, false, kRule);
  const at::Tensor scores = at::matmul(in[0].transpose(1, 2), in[1].permute({0, 2, 3, 1})) / 4.0;
  const at::Tensor keep = attention_keep_mask(kRule, kFlashBatch, 4, 12, 20);
  const at::Tensor p =
      at::softmax(scores, -1).masked_fill(~keep, 0.0) * static_cast<double>(keep_scale(kRule.threshold));
  const at::Tensor expected = at::matmul(p, in[2].transpose(1, 2)).transpose(1, 2);
  EXPECT_LT(error_of(attention_reference(in[0], in[1], in[2], o), expected), 1e-12);
}

// The fp64 path takes the reference: under a fixed mask its gradients are the slopes of its output.
TEST(FlashAttention, GradientsInDoubleAreFiniteDifferencesUnderTheFixedMask) {
  variable_list in = flash_inputs(5, 9, 16);
  in.push_back(normal({6, 1, 9}, 4));
  const AttentionOptions o = flash_options(in, true, kRule);
  for_forms([&](Attention attention) {
    const Op op = with(attention, o);
    const variable_list weights = output_weights(op, in);
    const Traced exact = run(op, in, at::kDouble, weights);
    for (std::size_t i = 0; i < in.size(); ++i) {
      const at::Tensor way = normal(in[i].sizes().vec(), 50 + i) * 1e-5;
      const auto loss = [&](double sign) {
        variable_list moved = in;
        moved[i] = in[i] + sign * way;
        return (op(moved)[0] * weights[0]).sum().item<double>();
      };
      const double slope = (loss(1) - loss(-1)) / 2, expected = (exact.gradients[i] * way).sum().item<double>();
      EXPECT_NEAR(slope / expected, 1, 1e-6) << "input " << i;
    }
  });
}

TEST(FlashAttention, BitsDoNotDependOnThreadsAndMasksNotOnTheForm) {
  variable_list in = flash_inputs(100, 100, 16);
  in.push_back(normal({6, 1, 100}, 4));
  const AttentionOptions o = flash_options(in, true, kRule);
  const int threads = at::get_num_threads();
  for_forms([&](Attention attention) {
    const Op op = with(attention, o);
    const variable_list weights = output_weights(op, in);
    at::set_num_threads(1);
    const Traced one = run(op, in, at::kFloat, weights);
    at::set_num_threads(2);
    const Traced two = run(op, in, at::kFloat, weights);
    EXPECT_TRUE(at::equal(one.outputs[0], two.outputs[0]));
    for (std::size_t i = 0; i < in.size(); ++i) EXPECT_TRUE(at::equal(one.gradients[i], two.gradients[i])) << i;
  });
  at::set_num_threads(threads);
}

TEST(FlashAttention, KeepMaskHasTheRateAndEqualStreamsGiveEqualMasks) {
  const at::Tensor keep = attention_keep_mask(kRule, 2, 6, 61, 67);
  const double n = static_cast<double>(keep.numel()), rate = 1 - kRule.threshold / 65536.0;
  EXPECT_NEAR(keep.to(at::kDouble).mean().item<double>(), rate, 5 * std::sqrt(rate * (1 - rate) / n));
  EXPECT_TRUE(at::equal(keep, attention_keep_mask(kRule, 2, 6, 61, 67)));
  DropoutRule other = kRule;
  ++other.stream;
  EXPECT_FALSE(at::equal(keep, attention_keep_mask(other, 2, 6, 61, 67)));
}

TEST(FlashAttention, BlindRowsAreZeroWithZeroGradients) {
  variable_list in = flash_inputs(50, 70, 16);
  in.push_back(at::zeros({2, 1, 50, 70}, at::kDouble));
  in[3][1].select(1, 3).fill_(-INFINITY);  // query 3 of sequence 1 sees nothing
  for (const DropoutRule& rule : {DropoutRule{}, kRule}) {
    for (const auto type : {at::kFloat, at::kBFloat16, at::kDouble}) {
      for_forms([&](Attention attention) {
        AttentionOptions o = flash_options(in, false, rule);
        o.key_mask = at::ones({2, 70}, at::kByte);
        o.key_mask[0].zero_();  // sequence 0 sees nothing at all
        const Op op = with(attention, o);
        const Traced r = run(op, in, type, output_weights(op, in));
        EXPECT_EQ(r.outputs[0][0].abs().max().item<double>(), 0.0);
        EXPECT_EQ(r.outputs[0][1][3].abs().max().item<double>(), 0.0);
        EXPECT_GT(r.outputs[0][1][4].abs().max().item<double>(), 0.0);
        EXPECT_EQ(r.gradients[0][1][3].abs().max().item<double>(), 0.0);
        for (const at::Tensor& gradient : r.gradients) {
          EXPECT_TRUE(gradient.isfinite().all().item<bool>());
          EXPECT_EQ(gradient[0].abs().max().item<double>(), 0.0);
        }
      });
    }
  }
}

TEST(FlashAttention, NanSpreadsAsInTorch) {
  for (std::size_t poisoned = 0; poisoned < 3; ++poisoned) {
    for (const float value : {NAN, INFINITY}) {
      variable_list in = flash_inputs(20, 20, 16, 2, 2);
      for (at::Tensor& x : in) x = x.to(at::kFloat);
      in[poisoned][1][5][1][3] = value;
      const auto heads = [](const at::Tensor& x) { return x.transpose(1, 2); };
      const at::Tensor expected =
          std::get<0>(at::_scaled_dot_product_attention_math(heads(in[0]), heads(in[1]), heads(in[2]))).transpose(1, 2);
      for_forms([&](Attention attention) {
        const at::Tensor out = attention(in[0], in[1], in[2], flash_options(in, false, {}));
        EXPECT_TRUE(at::equal(out.isnan(), expected.isnan())) << "input " << poisoned << " with " << value;
        const Op op = with(attention, flash_options(in, false, kRule));
        const Traced dropped = run(op, in, at::kFloat, output_weights(op, in));
        EXPECT_TRUE(at::equal(dropped.outputs[0].isfinite().all(-1), expected.isfinite().all(-1))) << "also if dropped";
        EXPECT_TRUE(dropped.gradients[0].isnan().any().item<bool>());
      });
    }
  }
}

TEST(FlashAttention, ViewsOfOtherLayoutsGiveTheSame) {
  const variable_list in = flash_inputs(33, 40, 32);
  const AttentionOptions o = flash_options(in, false, kRule);
  for_forms([&](Attention attention) {
    const Op op = with(attention, o);
    const variable_list weights = output_weights(op, in);
    const Traced plain = run(op, in, at::kFloat, weights);
    for (const int layout : {0, 1}) {  // [B, heads, T, D] underneath; a last axis that is not contiguous
      const Op turned = [&](const variable_list& x) -> variable_list {
        variable_list views;
        for (const at::Tensor& each : x) {
          views.push_back(layout == 0 ? each.transpose(1, 2).contiguous().transpose(1, 2)
                                      : each.transpose(1, 3).contiguous().transpose(1, 3));
        }
        return op(views);
      };
      const Traced other = run(turned, in, at::kFloat, weights);
      EXPECT_TRUE(at::equal(plain.outputs[0], other.outputs[0]));
      for (std::size_t i = 0; i < 3; ++i) EXPECT_TRUE(at::equal(plain.gradients[i], other.gradients[i])) << i;
    }
  });
}

TEST(FlashAttention, SecondDerivativesAreTheReferences) {
  const variable_list in = flash_inputs(6, 9, 16);
  const AttentionOptions o = flash_options(in, true, kRule);
  const Op penalty = [&](const variable_list& x) -> variable_list {
    const at::Tensor out = flash_attention(x[0], x[1], x[2], o);
    const auto slopes = torch::autograd::grad({out.square().sum()}, x, {}, true, true);
    return {slopes[0].square().sum() + slopes[1].sum() + slopes[2].square().sum()};
  };
  const variable_list weights{at::ones({}, at::kDouble)};
  const Traced exact = run(penalty, in, at::kDouble, weights), single = run(penalty, in, at::kFloat, weights);
  expect_errors(single, exact, [](std::size_t) { return 2e-5; });
}

TEST(FlashAttention, ARetainedGraphGivesTheSameTwiceAndChangedInputsAreNoticed) {
  for_forms([&](Attention attention) {
    variable_list in = flash_inputs(20, 20, 16);
    for (at::Tensor& x : in) x = x.to(at::kFloat).requires_grad_();
    const at::Tensor out = attention(in[0], in[1], in[2], flash_options(in, true, kRule));
    const auto first = torch::autograd::grad({out.sum()}, in, {}, true);
    const auto second = torch::autograd::grad({out.sum()}, in, {}, true);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_TRUE(at::equal(first[i], second[i]));
    {
      const at::NoGradGuard no_grad;
      in[1].add_(1);
    }
    EXPECT_THROW(torch::autograd::grad({out.sum()}, in), c10::Error);
  });
}

TEST(FlashAttention, EmptySizesAndEverythingDropped) {
  for_forms([&](Attention attention) {
    for (const auto& [t, s] : {std::pair<std::int64_t, std::int64_t>{0, 5}, {5, 0}}) {
      const variable_list in = flash_inputs(t, s, 16);
      const Traced r = run(with(attention, flash_options(in, false, kRule)), in, at::kFloat,
                           {at::ones({kFlashBatch, t, 6, 16}, at::kDouble)});
      EXPECT_EQ(r.outputs[0].abs().sum().item<double>() + r.gradients[1].abs().sum().item<double>(), 0.0);
    }
    const variable_list in = flash_inputs(10, 10, 16);
    const Op op = with(attention, flash_options(in, false, {1, 2, kDropAll}));
    const Traced r = run(op, in, at::kFloat, output_weights(op, in));
    EXPECT_EQ(r.outputs[0].abs().max().item<double>(), 0.0);
    for (const at::Tensor& gradient : r.gradients) EXPECT_EQ(gradient.abs().max().item<double>(), 0.0);
  });
}

TEST(FlashAttention, PackedProjectionsTakeTheSameMasksAndDropout) {
  const std::int64_t length = 70, heads = 6, kv = 2, dim = 16;
  const at::Tensor qkv = normal({kFlashBatch, length, (heads + 2 * kv) * dim}, 1, 1.2);
  AttentionOptions o{.heads = heads, .kv_heads = kv, .head_dim = dim, .dropout = kRule};
  o.mask = normal({heads, 1, length}, 3);
  const Op packed = [&](const variable_list& in) -> variable_list {
    return {packed_attention(in[0].clone(), {}, {}, o)};
  };
  const Op separate = [&](const variable_list& in) -> variable_list {
    const auto parts = in[0].view({kFlashBatch, length, -1, dim}).split_with_sizes({heads, kv, kv}, 2);
    return {flash_attention(parts[0], parts[1], parts[2], o).reshape({kFlashBatch, length, -1})};
  };
  const variable_list weights = output_weights(separate, {qkv});
  for (const auto type : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const Traced one = run(packed, {qkv}, type, weights), other = run(separate, {qkv}, type, weights);
    EXPECT_LT(error_of(one.outputs[0], other.outputs[0].to(at::kDouble)), 1e-12);
    EXPECT_LT(error_of(one.gradients[0], other.gradients[0].to(at::kDouble)), 1e-12);
  }
}

TEST(FlashAttention, WithoutGradientsNothingIsTracked) {
  const at::NoGradGuard no_grad;
  const variable_list in = flash_inputs(20, 20, 16);
  for_forms([&](Attention attention) {
    const at::Tensor q = in[0].to(at::kFloat).requires_grad_();
    EXPECT_FALSE(
        attention(q, in[1].to(at::kFloat), in[2].to(at::kFloat), flash_options(in, true, kRule)).requires_grad());
  });
}

TEST(FlashAttention, NothingIsKeptButTheOutputAndOneFloatARowOrTheProbabilities) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    variable_list in = flash_inputs(50, 70, 16);
    for (at::Tensor& x : in) x = x.to(type).requires_grad_();
    const auto size = static_cast<std::int64_t>(c10::elementSize(type));
    const std::int64_t rows = kFlashBatch * 50 * 6, output = rows * 16 * size;
    for_forms([&](Attention attention) {
      const tensor::LiveBytes live;
      const std::int64_t before = live.now();
      const at::Tensor out = attention(in[0], in[1], in[2], flash_options(in, true, kRule));
      EXPECT_EQ(live.now() - before, output + rows * (attention == flash_attention ? 4 : 70 * size));
    });
  }
}

TEST(FlashAttention, MessagesNameWhatDoesNotFit) {
  const variable_list in = flash_inputs(4, 5, 16);
  AttentionOptions o = flash_options(in, false, {});
  EXPECT_MESSAGE(flash_attention(in[0], in[1], in[2][0], o), "expected [B, T, heads, D]");
  EXPECT_MESSAGE(flash_attention(in[0], in[1], in[2].narrow(1, 0, 4), o), "do not fit queries [2, 4, 6, 16]");
  EXPECT_MESSAGE(flash_attention(in[0].narrow(2, 0, 5), in[1], in[2], o), "5 heads of 16 cannot share 2");
  EXPECT_MESSAGE(flash_attention(in[0].to(at::kFloat), in[1], in[2], o), "one floating type and device, got Float");
  o.mask = at::zeros({2, 6, 4, 4});
  EXPECT_MESSAGE(flash_attention(in[0], in[1], in[2], o), "mask [2, 6, 4, 4] does not broadcast to [2, 6, 4, 5]");
  o.mask = at::zeros({4, 5}, at::kByte);
  EXPECT_MESSAGE(flash_attention(in[0], in[1], in[2], o), "bool (false hides a key) or floating");
  o.mask = at::Tensor();
  o.key_mask = at::ones({2, 4}, at::kByte);
  EXPECT_MESSAGE(stored_attention(in[0], in[1], in[2], o), "key_mask does not fit [2, 5]");
  o.key_mask = at::Tensor();
  o.scale = -1;
  EXPECT_MESSAGE(stored_attention(in[0], in[1], in[2], o), "scale must be positive, got -1");
  o.scale = 0;
  o.dropout.threshold = kDropAll + 1;
  EXPECT_MESSAGE(stored_attention(in[0], in[1], in[2], o), "dropout threshold 65537 is above 65536");
  o.dropout.threshold = 0;
  o.mask = at::zeros({4, 4}).requires_grad_();
  EXPECT_MESSAGE(packed_attention(at::zeros({2, 4, 160}), {}, {}, o), "needs flash_attention");
}

}  // namespace
}  // namespace gantry::kernels
