#include "gantry/cost/op_pricing.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "gantry/cost/node_operators.h"
#include "tests/cost/pricing_support.h"
#include "tests/formats/test_files.h"

namespace gantry::cost {
namespace {

using formats::testing::input_error;
using testing::graph_of;
using testing::has_line;
using testing::line_of;
using testing::measured;
using testing::sizes;

constexpr OperatorRules kArtifact{.clamp_backward = true, .drop_small = true, .skip_edge_norms = true};
constexpr OperatorRules kNoRules{.clamp_backward = false};

// plan.md 7.4: seconds of GPT-1.3B's sections on an L4, without flash attention.
struct PricingGolden {
  int batch;
  int accumulation;
  double block_forward, block_backward;
  double pre_forward, pre_backward;
  double post_forward, post_backward;
};

class GoldenSections : public ::testing::TestWithParam<PricingGolden> {};

TEST_P(GoldenSections, EqualThePublishedOnes) {
  const PricingGolden& golden = GetParam();
  const Profile profile = load_profile("l4-mist");
  const OperatorPricer pricer(profile, "fp16", kArtifact);
  const auto graph = graph_of("gpt-1.3b");
  const auto check = [&](spec::NodeRange range, double elements, double forward, double backward) {
    const SectionSeconds section = pricer.price(graph, range, sizes(golden.batch));
    const double adds = pricer.accumulate(elements).forward_s * (golden.accumulation - 1) / golden.accumulation;
    EXPECT_NEAR(section.forward_s, forward, 1e-6 * forward);
    EXPECT_NEAR(section.backward_s + adds, backward, 1e-6 * backward);
    for (const OperatorLine& line : section.lines) {
      EXPECT_EQ(line.provenance, Provenance::kMeasured) << line.node << " " << line.op;
    }
  };
  // The elements are those of the paper's code, whose linears have no biases.
  constexpr double kBlock = 50'339'840;
  constexpr double kVocabulary = 103'022'592;
  check(graph.layer(0), kBlock, golden.block_forward, golden.block_backward);
  check(graph.before_layers(), kVocabulary, golden.pre_forward, golden.pre_backward);
  check(graph.after_layers(), kVocabulary, golden.post_forward, golden.post_backward);
}

INSTANTIATE_TEST_SUITE_P(
    Batches, GoldenSections,
    ::testing::Values(PricingGolden{8, 2, .052350055, .102215987, .000873472, .003050906, .116215910, .137590271},
                      PricingGolden{2, 16, .013389722, .026235264, .000217293, .002879514, .028800614, .035899725}),
    [](const auto& info) { return "Batch" + std::to_string(info.param.batch); });

TEST(OpPricing, RulesClampAndDropMeasuredOperators) {
  Profile profile = load_profile("l4-mist");
  const auto graph = graph_of("gpt-1.3b");
  const auto softmax = [&](const OperatorRules& rules) {
    return line_of(OperatorPricer(profile, "fp16", rules).price(graph, graph.layer(0), sizes(8)), "layers.0.attention",
                   "attention_softmax");
  };
  EXPECT_NEAR(softmax(kNoRules).backward_s, .01828792324, 1e-9);
  EXPECT_NEAR(softmax({}).backward_s, 2 * .00675071998, 1e-9);
  EXPECT_NEAR(softmax({.clamp_idle_only = true}).backward_s, .01828792324, 1e-9);

  const OperatorPricer kept(profile, "fp16", {.clamp_idle_only = true});
  const OperatorPricer dropped(profile, "fp16", kArtifact);
  const auto post = graph.after_layers();
  // A cast from fp16 to fp16 does nothing: clamped by either rule, dropped by the second.
  EXPECT_LT(line_of(kept.price(graph, post, sizes(8)), "loss", "cast").backward_s, 6e-6);
  EXPECT_FALSE(has_line(dropped.price(graph, post, sizes(8)), "loss", "cast"));
  EXPECT_TRUE(has_line(kept.price(graph, post, sizes(8)), "final_norm", "norm"));
  EXPECT_FALSE(has_line(dropped.price(graph, post, sizes(8)), "final_norm", "norm"));
}

TEST(OpPricing, OperatorsHaveTheSizesOfOneRank) {
  const auto graph = graph_of("llama3-8b", {.attention = spec::AttentionMemory::kFlash});
  std::vector<std::string> found;
  for (const spec::GraphNode& node : graph.nodes()) {
    for (const OperatorUse& use : operators_of(graph, node, sizes(2, 1024, 4), false)) {
      std::string line = node.name + ": " + use.op;
      for (const std::int64_t size : use.sizes) line += " " + std::to_string(size);
      found.push_back(line);
    }
  }
  EXPECT_EQ(
      found,
      (std::vector<std::string>{
          "embedding: embedding 2048 4096 32064", "layers.0.attention.norm: norm 2048 4096",
          "layers.0.attention.qkv: linear 2048 4096 1536", "layers.0.attention.rope: rope 2 8 2 1024 128",
          "layers.0.attention: attention_flash 2 8 2 1024 128", "layers.0.attention.output: linear 2048 1024 4096",
          "layers.0.attention.residual: residual_add 8388608", "layers.0.mlp.norm: norm 2048 4096",
          "layers.0.mlp.gate_up: linear 2048 4096 7168", "layers.0.mlp.activation: gated_activation 7340032",
          "layers.0.mlp.down: linear 2048 3584 4096", "layers.0.mlp.residual: residual_add 8388608",
          "final_norm: norm 2048 4096", "head: linear 2048 4096 32064", "loss: cross_entropy 2048 32064",
          "loss: mean 2048", "loss: cast 2048 32064"}));
}

TEST(OpPricing, SequenceParallelismSplitsWhatLiesBetweenProducts) {
  const auto all = graph_of("gpt-1.3b");
  const auto split = graph_of("gpt-1.3b", {.sequence_parallel = true});
  ASSERT_EQ(all.nodes().size(), split.nodes().size());
  for (std::size_t i = 0; i < all.nodes().size(); ++i) {
    const spec::GraphNode& node = all.nodes()[i];
    const auto whole = operators_of(all, node, sizes(2, 1024, 4), false);
    const auto shares = operators_of(split, split.nodes()[i], sizes(2, 1024, 4), false);
    ASSERT_EQ(whole.size(), shares.size());
    const bool between = node.kind == spec::OpKind::kNorm || node.kind == spec::OpKind::kResidualAdd;
    EXPECT_EQ(shares[0].sizes[0] * (between ? 4 : 1), whole[0].sizes[0]) << node.name;
  }
}

TEST(OpPricing, UnevenTensorParallelismIsRefused) {
  const Profile profile = load_profile("l4");
  const OperatorPricer pricer(profile, "fp16", {});
  const auto graph = graph_of("smollm2-135m");
  const std::string message = input_error([&] { pricer.price(graph, graph.layer(0), sizes(1, 128, 5)); });
  EXPECT_NE(message.find("tensor parallelism over 5 devices does not divide a size evenly"), std::string::npos)
      << message;
}

TEST(OpPricing, ChunkedLossRunsHeadAndLossTwice) {
  const Profile profile = load_profile("l4-mist");
  const OperatorPricer pricer(profile, "fp16", kNoRules);
  const auto stock = graph_of("gpt-1.3b");
  const auto chunked = graph_of("gpt-1.3b", {.loss = spec::LossMemory::kChunked});
  const SectionSeconds expected = pricer.price(stock, stock.after_layers(), sizes(4));
  const SectionSeconds found = pricer.price(chunked, chunked.after_layers(), sizes(4));
  for (const auto& [node, op] : {std::pair{"head", "linear"}, std::pair{"loss", "cross_entropy"}}) {
    const OperatorLine once = line_of(expected, node, op);
    const OperatorLine twice = line_of(found, "head_and_loss", op);
    EXPECT_DOUBLE_EQ(twice.forward_s, once.forward_s);
    EXPECT_DOUBLE_EQ(twice.backward_s, once.backward_s + once.forward_s);
  }
  EXPECT_FALSE(has_line(found, "head_and_loss", "cast"));
}

TEST(OpPricing, MemoryModesCostWhatTheyDoBeyondStockLayers) {
  const Profile profile = load_profile("l4-mist");
  const OperatorPricer pricer(profile, "fp16", kNoRules);
  const auto stock = graph_of("gpt-1.3b");
  const auto price = [&](const spec::GraphOptions& options) {
    const auto graph = graph_of("gpt-1.3b", options);
    return pricer.price(graph, graph.layer(0), sizes(4), &stock);
  };
  const SectionSeconds plain = price({});
  EXPECT_FALSE(has_line(plain, "layers.0.mlp.activation", "memory_mode"));

  const SectionSeconds again =
      price({.activation = spec::ActivationMemory::kRecompute, .norm = spec::NormMemory::kRecompute});
  EXPECT_DOUBLE_EQ(again.forward_s, plain.forward_s);
  for (const auto& [node, op] :
       {std::pair{"layers.0.mlp.activation", "activation"}, std::pair{"layers.0.attention.norm", "norm"}}) {
    EXPECT_NEAR(line_of(again, node, "memory_mode").backward_s, line_of(plain, node, op).forward_s, 1e-12) << node;
  }

  // The side flag of an in-place activation is one byte an element; the norm moves no more than stock.
  const SectionSeconds in_place =
      price({.activation = spec::ActivationMemory::kInPlace, .norm = spec::NormMemory::kInPlace});
  const OperatorLine flag = line_of(in_place, "layers.0.mlp.activation", "memory_mode");
  EXPECT_NEAR(flag.backward_s, 4 * 2048 * 8192.0 / 240e9, .05 * flag.backward_s);
  EXPECT_EQ(flag.provenance, Provenance::kRoofline);
  EXPECT_FALSE(has_line(in_place, "layers.0.attention.norm", "memory_mode"));
}

TEST(OpPricing, InPlaceAttentionDropsAgain) {
  Profile profile = load_profile("l4");
  const OperatorPricer pricer(profile, "fp16", kNoRules);
  const auto stock = graph_of("gpt2");
  const auto in_place = graph_of("gpt2", {.attention = spec::AttentionMemory::kInPlace});
  const SectionSeconds plain = pricer.price(stock, stock.layer(0), sizes(4, 1024));
  const SectionSeconds found = pricer.price(in_place, in_place.layer(0), sizes(4, 1024), &stock);
  EXPECT_TRUE(
      has_line(pricer.price(in_place, in_place.layer(0), sizes(4, 1024)), "layers.0.attention", "attention_dropout"));
  EXPECT_DOUBLE_EQ(line_of(found, "layers.0.attention", "memory_mode").backward_s,
                   line_of(plain, "layers.0.attention", "attention_dropout").forward_s);
}

TEST(OpPricing, DropoutMeasuredAtRateZeroIsNoMeasurement) {
  const Profile profile = load_profile("l4-mist");
  const OperatorPricer pricer(profile, "fp16", kNoRules);
  spec::ModelConfig config = spec::named_model("gpt-1.3b");
  config.num_layers = 1;
  config.dropout = 0.1;
  const auto graph = spec::operator_graph(config, {.activation_bytes = 2, .weight_bytes = 2});
  const OperatorLine line = line_of(pricer.price(graph, graph.layer(0), sizes(8)), "layers.0.mlp.dropout", "dropout");
  EXPECT_EQ(line.provenance, Provenance::kRoofline);
  EXPECT_GT(line.forward_s, 8 * 2048 * 2048.0 * 5 / 360e9);  // the L4 moves 300 GB/s
}

TEST(OpPricing, TheOtherHalfTypeStandsInAndSaysSo) {
  const Profile profile = load_profile("l4-mist");
  const auto graph = graph_of("gpt-1.3b");
  const auto line = [&](const char* dtype) {
    return line_of(OperatorPricer(profile, dtype, kNoRules).price(graph, graph.layer(0), sizes(4)), "layers.0.mlp.up",
                   "linear");
  };
  EXPECT_EQ(line("bf16").provenance, Provenance::kFitted);
  EXPECT_EQ(line("bf16").forward_s, line("fp16").forward_s);
  EXPECT_EQ(line("fp32").provenance, Provenance::kDataSheet);
}

TEST(OpPricing, AttentionWithoutAMaskIsNotTheMeasuredCausalOne) {
  Profile profile = load_profile("l4");
  profile.operators = {measured("attention_flash", {8, 16, 16, 512, 64}, 1e-3, 2.5e-3)};
  const OperatorPricer pricer(profile, "fp16", kNoRules);
  const auto graph = graph_of("bert-large", {.attention = spec::AttentionMemory::kFlash});
  const OperatorLine line =
      line_of(pricer.price(graph, graph.layer(0), sizes(8, 512)), "layers.0.attention", "attention_flash");
  EXPECT_EQ(line.provenance, Provenance::kRoofline);
  EXPECT_NEAR(line.forward_s, 2e-3, 2e-5);
}

TEST(OpPricing, AnUnknownDeviceIsAnErrorThatNamesTheOperator) {
  Profile profile;
  profile.name = "bare";
  const OperatorPricer pricer(profile, "bf16", {});
  const auto graph = graph_of("gpt-1.3b");
  const std::string message = input_error([&] { pricer.price(graph, graph.layer(0), sizes(1)); });
  EXPECT_NE(message.find("profile 'bare': operator 'norm' is not measured in bf16"), std::string::npos) << message;
  EXPECT_NE(message.find("`gantry profile`"), std::string::npos) << message;
  EXPECT_NE(input_error([&] { OperatorPricer(profile, "int8", {}); }).find("dtype 'int8'"), std::string::npos);
}

TEST(OpPricing, OptimizerAndAccumulationAreBoundByBytes) {
  const Profile profile = load_profile("l4-mist");
  const OperatorPricer pricer(profile, "fp16", {});
  // Six bytes an element of the measured addition take 240 GB/s; the optimizer moves 28.
  const OperatorLine add = pricer.accumulate(103'022'592);
  EXPECT_EQ(add.provenance, Provenance::kMeasured);
  EXPECT_EQ(add.backward_s, 0);
  EXPECT_NEAR(pricer.optimizer_s(103'022'592), add.forward_s * 28 / 6, .03 * add.forward_s * 28 / 6);
  EXPECT_EQ(pricer.accumulate(103'022'593).provenance, Provenance::kRoofline);
  EXPECT_NEAR(pricer.accumulate(2 * 103'022'592.0).forward_s, 2 * add.forward_s, .06 * add.forward_s);
  EXPECT_NE(input_error([&] { pricer.accumulate(-1); }).find("-1 gradient elements"), std::string::npos);
}

}  // namespace
}  // namespace gantry::cost
