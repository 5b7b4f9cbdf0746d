// Packed and cached attention against the composition of ATen operators in fp64.
#include "gantry/kernels/attention/attention.h"

#include <cmath>

#include "tests/kernels/torch_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

struct Setting {
  std::int64_t length, head_dim;
  std::int64_t heads = 6, kv_heads = 2;
  bool causal = true, rope = false, documents = false, padding = false;
};

constexpr std::int64_t kPackedBatch = 2;

RopeTables tables(std::int64_t positions, std::int64_t head_dim, at::ScalarType type = at::kFloat) {
  const at::Tensor frequencies =
      at::pow(10000.0, at::arange(0, head_dim, 2, at::kDouble) / -static_cast<double>(head_dim));
  const at::Tensor angles = at::outer(at::arange(positions, at::kDouble), frequencies);
  return {angles.cos().to(at::kFloat).to(type), angles.sin().to(at::kFloat).to(type)};
}

AttentionOptions packed_options(const Setting& s) {
  AttentionOptions o{.heads = s.heads, .kv_heads = s.kv_heads, .head_dim = s.head_dim, .causal = s.causal};
  if (s.documents) {  // a document of 20 tokens, then one that lasts
    const at::Tensor starts = at::arange(s.length, at::kInt).ge(20).to(at::kInt) * 20;
    o.row_starts = starts.unsqueeze(0).expand({kPackedBatch, s.length}).contiguous();
  }
  if (s.padding) {  // the first sequence hides its tail, the second everything
    o.key_mask = at::ones({kPackedBatch, s.length}, at::kByte);
    o.key_mask[0].slice(0, s.length / 2).zero_();
    o.key_mask[1].zero_();
  }
  return o;
}

at::Tensor positions_of(const Setting& s) {
  return at::arange(s.length).add(3).unsqueeze(0).expand({kPackedBatch, s.length});
}

// Plain rotation of x [B, T, H, D] by tables of x's own type.
at::Tensor rotated(const at::Tensor& x, const RopeTables& rope, const at::Tensor& positions) {
  const at::Tensor c = rope.cosine.index({positions}).unsqueeze(2), s = rope.sine.index({positions}).unsqueeze(2);
  const auto halves = x.chunk(2, -1);
  return at::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1).to(x.scalar_type());
}

Op packed_op(const Setting& s) {
  return [s](const variable_list& in) -> variable_list {
    const RopeTables rope = s.rope ? tables(s.length + 3, s.head_dim) : RopeTables{};
    return {packed_attention(in[0].clone(), rope, positions_of(s), packed_options(s))};  // it consumes its input
  };
}

Op plain_attention(const Setting& s) {
  return [s](const variable_list& in) -> variable_list {
    const auto parts =
        in[0].view({kPackedBatch, s.length, -1, s.head_dim}).split_with_sizes({s.heads, s.kv_heads, s.kv_heads}, 2);
    const auto turn = [&](const at::Tensor& x) {
      const auto wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
      return s.rope ? rotated(x, tables(s.length + 3, s.head_dim, wide), positions_of(s)) : x;
    };
    return {attention_reference(turn(parts[0]), turn(parts[1]), parts[2], packed_options(s))
                .reshape({kPackedBatch, s.length, -1})};
  };
}

at::Tensor projections(const Setting& s) {
  return normal({kPackedBatch, s.length, (s.heads + 2 * s.kv_heads) * s.head_dim}, 1, 1.2);
}

void expect_attention(const Setting& s) {
  SCOPED_TRACE(::testing::Message() << "T " << s.length << ", D " << s.head_dim << ", heads " << s.heads << "/"
                                    << s.kv_heads << ", causal " << s.causal << ", rope " << s.rope);
  expect_matches(packed_op(s), plain_attention(s), {projections(s)});
}

TEST(Attention, ReferenceAgreesWithTorch) {
  const at::Tensor q = normal({2, 9, 6, 16}, 1), k = normal({2, 9, 2, 16}, 2), v = normal({2, 9, 2, 16}, 3);
  const auto heads = [](const at::Tensor& x) { return x.repeat_interleave(6 / x.size(2), 2).transpose(1, 2); };
  for (const bool causal : {false, true}) {
    const at::Tensor expected = at::scaled_dot_product_attention(heads(q), heads(k), heads(v), {}, 0.0, causal);
    const AttentionOptions o{.heads = 6, .kv_heads = 2, .head_dim = 16, .causal = causal};
    EXPECT_LT(error_of(attention_reference(q, k, v, o).transpose(1, 2), expected), 1e-12);
  }
}

TEST(Attention, LengthsAroundTheTiles) {
  for (const std::int64_t length : {1, 2, 47, 48, 49, 64, 65, 200}) {
    expect_attention({length, 16});
    expect_attention({.length = length, .head_dim = 16, .causal = false, .rope = true});
  }
}

TEST(Attention, HeadSizesAndGroups) {
  for (const std::int64_t dim : {16, 64, 80, 128}) {
    expect_attention({.length = 50, .head_dim = dim, .heads = 3, .kv_heads = 3, .rope = true});
    expect_attention({.length = 50, .head_dim = dim, .heads = 3, .kv_heads = 1, .rope = true});
  }
}

TEST(Attention, HeadSizesWithoutARawKernelTakeTheReference) {
  expect_attention({.length = 20, .head_dim = 24, .rope = true});
  expect_attention({.length = 20, .head_dim = 6, .heads = 3, .kv_heads = 1, .causal = false});
}

TEST(Attention, ScaleIsRespected) {
  Setting s{20, 16};
  AttentionOptions o = packed_options(s);
  o.scale = 0.05;
  const at::Tensor qkv = projections(s);
  const auto parts = qkv.view({kPackedBatch, 20, 10, 16}).split_with_sizes({6, 2, 2}, 2);
  const at::Tensor expected = attention_reference(parts[0], parts[1], parts[2], o).reshape({kPackedBatch, 20, -1});
  EXPECT_LT(error_of(packed_attention(qkv.to(at::kFloat), {}, {}, o), expected), 1e-6);
}

TEST(Attention, DocumentsDoNotSeeEachOther) {
  const Setting s{.length = 75, .head_dim = 32, .rope = true, .documents = true};
  expect_attention(s);
  at::Tensor changed = projections(s).to(at::kFloat);
  const at::Tensor before = packed_op(s)({changed})[0];
  changed.narrow(1, 0, 20).fill_(0.5);
  EXPECT_TRUE(at::equal(packed_op(s)({changed})[0].narrow(1, 20, 55), before.narrow(1, 20, 55)));
}

TEST(Attention, PaddingHidesKeysAndBlindRowsAreZeroWithZeroGradients) {
  for (const bool causal : {false, true}) {
    const Setting s{.length = 70, .head_dim = 16, .causal = causal, .rope = true, .padding = true};
    const at::Tensor qkv = projections(s).to(at::kFloat).requires_grad_();
    const at::Tensor out = packed_op(s)({qkv})[0];
    EXPECT_TRUE(at::equal(out[1], at::zeros_like(out[1])));
    out.square().sum().backward();
    EXPECT_TRUE(at::equal(qkv.grad()[1], at::zeros_like(qkv.grad()[1])));
    const at::Tensor hidden_keys = qkv.grad()[0].slice(0, 35).slice(1, 6 * 16);
    EXPECT_TRUE(at::equal(hidden_keys, at::zeros_like(hidden_keys)));
    // The sequence that sees something, alone against the reference: softmax's own gradient is NaN on blind rows.
    const at::Tensor exact = qkv.detach().to(at::kDouble).requires_grad_();
    const at::Tensor reference = plain_attention(s)({exact})[0][0];
    EXPECT_LT(error_of(out[0], reference), 1e-5);
    EXPECT_LT(error_of(qkv.grad()[0], torch::autograd::grad({reference.square().sum()}, {exact})[0][0]), 1e-5);
  }
}

TEST(Attention, NanInOneSequenceStaysThereAndIsNotLost) {
  const Setting s{.length = 20, .head_dim = 16, .causal = false};
  at::Tensor qkv = projections(s).to(at::kFloat);
  qkv[0].narrow(1, 0, 16).fill_(NAN);  // all queries of one head
  const at::Tensor out = packed_op(s)({qkv})[0];
  EXPECT_TRUE(out[0].narrow(1, 0, 16).isnan().all().item<bool>());
  EXPECT_FALSE(out[0].narrow(1, 16, 80).isnan().any().item<bool>());
  EXPECT_FALSE(out[1].isnan().any().item<bool>());
}

TEST(Attention, WithoutGradientsTheOutputIsNotTracked) {
  const at::NoGradGuard no_grad;
  const Setting s{20, 16};
  EXPECT_FALSE(packed_op(s)({projections(s).to(at::kFloat).requires_grad_()})[0].requires_grad());
}

struct Cache {
  Cache(const Setting& s, std::int64_t capacity, at::ScalarType type)
      : slices{at::full({kPackedBatch, capacity, s.kv_heads, s.head_dim}, NAN, type),
               at::full({kPackedBatch, capacity, s.kv_heads, s.head_dim}, NAN, type)} {}
  KvSlices slices;
};

// Feeds `sizes` tokens at a time and joins the outputs.
at::Tensor feed(const Setting& s, const at::Tensor& qkv, const at::Tensor& positions, const at::Tensor& starts,
                const std::vector<std::int64_t>& sizes) {
  const RopeTables rope = s.rope ? tables(s.length + 3, s.head_dim) : RopeTables{};
  const Cache cache(s, s.length + 2, qkv.scalar_type());
  variable_list outputs;
  std::int64_t done = 0;
  for (const std::int64_t tokens : sizes) {
    const at::Tensor part = qkv.narrow(1, done, tokens).clone(at::MemoryFormat::Contiguous);
    outputs.push_back(cached_attention(part, rope, positions.narrow(1, done, tokens).contiguous(), cache.slices, done,
                                       starts, packed_options(s)));
    done += tokens;
  }
  return at::cat(outputs, 1);
}

TEST(CachedAttention, PrefillAndDecodingEqualTheFullForward) {
  for (const std::int64_t dim : {64, 24}) {  // with and without a tiled kernel
    const Setting s{.length = 75, .head_dim = dim, .rope = true};
    const at::Tensor exact = plain_attention(s)({projections(s)})[0];
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      SCOPED_TRACE(::testing::Message() << type << ", head_dim " << dim);
      std::vector<std::int64_t> one_by_one(25, 1), sizes{50};
      sizes.insert(sizes.end(), one_by_one.begin(), one_by_one.end());
      const at::Tensor qkv = projections(s).to(type);
      const double bound = type == at::kFloat ? 1e-5 : 1.5 * error_of(plain_attention(s)({qkv})[0], exact);
      EXPECT_LT(error_of(feed(s, qkv, positions_of(s), {}, sizes), exact), bound);
      EXPECT_LT(error_of(feed(s, qkv, positions_of(s), {}, {3, 40, 4, 1, 27}), exact), bound);
    }
  }
}

// Sequence 1 is 13 tokens shorter and padded on the left; its real tokens must not notice.
TEST(CachedAttention, LeftPaddedSequencesEqualTheirUnpaddedSelves) {
  const Setting s{.length = 40, .head_dim = 32, .rope = true};
  const std::int64_t pad = 13;
  const at::Tensor qkv = projections(s).to(at::kFloat), starts = at::tensor({std::int64_t{0}, pad});
  const at::Tensor positions = (positions_of(s) - starts.unsqueeze(1)).clamp_min(0);
  const at::Tensor out = feed(s, qkv, positions, starts, {20, 2, 17, 1});
  Setting unpadded = s;
  unpadded.length = 40 - pad;
  const at::Tensor alone = qkv[1].slice(0, pad).unsqueeze(0).expand({kPackedBatch, 40 - pad, -1}).contiguous();
  const at::Tensor expected = plain_attention(unpadded)({alone.to(at::kDouble)})[0][1];
  EXPECT_LT(error_of(out[1].slice(0, pad), expected), 1e-5);
  EXPECT_TRUE(at::equal(out[1].narrow(0, 0, pad), at::zeros({pad, 6 * 32}))) << "padding sees nothing";
}

TEST(CachedAttention, MessagesNameWhatDoesNotFit) {
  const Setting s{.length = 4, .head_dim = 16};
  const at::Tensor qkv = projections(s).to(at::kFloat), none;
  const AttentionOptions o = packed_options(s);
  const KvSlices cache = Cache(s, 6, at::kFloat).slices;
  EXPECT_MESSAGE(cached_attention(qkv, {}, none, cache, 3, none, o),
                 "3 + 4 tokens of 2 sequences do not fit a cache of 2 x 6");
  EXPECT_MESSAGE(cached_attention(qkv, {}, none, cache, -1, none, o), "-1 + 4 tokens");
  EXPECT_MESSAGE(cached_attention(qkv, {}, none, Cache(s, 6, at::kBFloat16).slices, 0, none, o),
                 "contiguous Float caches");
  EXPECT_MESSAGE(cached_attention(qkv, {}, none, {cache.keys, cache.values.narrow(3, 0, 8)}, 0, none, o),
                 "[B, capacity, 2, 16]");
  EXPECT_MESSAGE(cached_attention(qkv, {}, none, cache, 0, at::zeros({2}, at::kInt), o),
                 "starts must be 2 int64 positions");
  EXPECT_MESSAGE(cached_attention(qkv, {}, none, cache, 0, at::tensor({std::int64_t{0}, std::int64_t{-1}}), o),
                 "sequence 1 starts at position -1");
  // The path of few tokens, too, reads tables and positions only after checking them.
  EXPECT_MESSAGE(cached_attention(qkv, tables(9, 32), at::arange(8), cache, 0, none, o), "tables [positions, 8]");
  EXPECT_MESSAGE(cached_attention(qkv, tables(9, 16), at::arange(8, at::kInt), cache, 0, none, o), "8 Int");
  EXPECT_MESSAGE(cached_attention(qkv, tables(7, 16), at::arange(8), cache, 0, none, o), "is outside the 7 positions");
  AttentionOptions masked = o;
  masked.key_mask = at::ones({2, 4}, at::kByte);
  EXPECT_MESSAGE(cached_attention(qkv, {}, none, cache, 0, none, masked), "do not apply to a cache");
}

TEST(Attention, MessagesNameWhatDoesNotFit) {
  const Setting s{.length = 4, .head_dim = 16};
  const at::Tensor qkv = projections(s).to(at::kFloat);
  AttentionOptions o = packed_options(s);
  EXPECT_MESSAGE(packed_attention(qkv, tables(4, 16), at::arange(8).view({2, 4}), o), "is outside the 4 positions");
  EXPECT_MESSAGE(packed_attention(qkv, tables(9, 16), at::arange(7), o), "expected 8 int64 positions, got 7 Long");
  EXPECT_MESSAGE(packed_attention(qkv, {tables(9, 16).cosine.to(at::kBFloat16), tables(9, 16).sine}, at::arange(8), o),
                 "two contiguous Float tables [positions, 8], got BFloat16 [9, 8]");
  EXPECT_MESSAGE(packed_attention(qkv.transpose(0, 1), {}, {}, o),
                 "expected contiguous packed projections [B, T, 160]");
  o.key_mask = at::ones({2, 5}, at::kByte);
  EXPECT_MESSAGE(packed_attention(qkv, {}, {}, o), "key_mask does not fit [2, 4]");
  o = packed_options(s);
  o.row_starts = at::zeros({2, 4}, at::kLong);
  EXPECT_MESSAGE(packed_attention(qkv, {}, {}, o), "row_starts does not fit");
  o.kv_heads = 4;
  EXPECT_MESSAGE(packed_attention(qkv, {}, {}, o), "6 heads cannot share 4 key/value heads");
}

}  // namespace
}  // namespace gantry::kernels
