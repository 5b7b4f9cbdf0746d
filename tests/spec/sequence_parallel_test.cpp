// What Megatron's sequence parallelism changes in the operator graph, and the steps of attention's backward.
#include <gtest/gtest.h>

#include <algorithm>

#include "gantry/spec/operator_graph.h"
#include "tests/spec/spec_test_support.h"

namespace gantry::spec {
namespace {

using testing::kB;
using testing::kS;

std::vector<ModelConfig> split_families() { return {testing::llama(), testing::gpt2(), testing::bert()}; }

GraphOptions options_of(bool sequence_parallel) {
  GraphOptions options;
  options.attention = AttentionMemory::kFlash;
  options.sequence_parallel = sequence_parallel;
  return options;
}

TEST(SequenceParallel, DividesWhatALayerKeepsByTp) {
  for (const ModelConfig& config : split_families()) {
    const OperatorGraph graph = operator_graph(config, options_of(true));
    const OperatorGraph plain = operator_graph(config, options_of(false));
    const NodeRange layer = graph.layer(1);
    const SymbolicSize saved = graph.saved_bytes(layer);
    for (const auto& term : saved.terms()) EXPECT_EQ(term.powers[3], -1) << "not divided";
    EXPECT_EQ(saved.evaluate({.batch = 2, .sequence = 64}),
              plain.saved_bytes(layer).evaluate({.batch = 2, .sequence = 64}))
        << "one rank keeps what it kept";
  }
}

TEST(SequenceParallel, NormsDropoutAndSumsWorkOnAShareOfTheTokens) {
  for (const ModelConfig& config : split_families()) {
    const OperatorGraph graph = operator_graph(config, options_of(true));
    for (const GraphNode& node : graph.nodes()) {
      const bool local =
          node.kind == OpKind::kNorm || node.kind == OpKind::kDropout || node.kind == OpKind::kResidualAdd;
      if (!local) continue;
      const double whole = node.vector_flops.evaluate({.batch = 2, .sequence = 64});
      EXPECT_EQ(node.vector_flops.evaluate({.batch = 2, .sequence = 64, .tensor_parallel = 4}), whole / 4) << node.name;
      EXPECT_TRUE(node.workspace_bytes.is_zero()) << node.name;
    }
  }
}

TEST(SequenceParallel, MovesTheSameBytesAndGathersTheInputOnceMore) {
  for (const ModelConfig& config : split_families()) {
    const OperatorGraph graph = operator_graph(config, options_of(true));
    const OperatorGraph plain = operator_graph(config, options_of(false));
    ASSERT_EQ(graph.nodes().size(), plain.nodes().size());
    for (std::size_t i = 0; i < graph.nodes().size(); ++i) {
      const GraphNode& node = graph.nodes()[i];
      SCOPED_TRACE(node.name);
      EXPECT_EQ(node.all_reduce_bytes, plain.nodes()[i].all_reduce_bytes);
      EXPECT_EQ(node.backward_all_reduce_bytes, plain.nodes()[i].backward_all_reduce_bytes);
      EXPECT_EQ(node.backward_all_gather_bytes, node.backward_all_reduce_bytes);
      EXPECT_TRUE(plain.nodes()[i].backward_all_gather_bytes.is_zero());
    }
    EXPECT_EQ(graph.matrix_flops(graph.layer(0)), plain.matrix_flops(plain.layer(0)));
  }
}

TEST(SequenceParallel, SplitMatricesHoldWholeHiddenStatesWhileTheyRun) {
  const ModelConfig config = testing::gpt2();
  const OperatorGraph graph = operator_graph(config, options_of(true));
  const SymbolicSize hidden = kB * kS * config.hidden_size * 4;
  const auto node = [&](std::string_view name) {
    return *std::ranges::find_if(graph.nodes(), [&](const GraphNode& n) { return n.name == name; });
  };
  const GraphNode up = node("layers.0.mlp.up");
  EXPECT_EQ(up.workspace_bytes, hidden) << "the gathered input";
  EXPECT_EQ(up.backward_workspace_bytes, hidden * 2) << "it again, and its gradient before the reduce-scatter";
  EXPECT_EQ(graph.bytes_of({up.saved[0]}), per_rank(hidden)) << "keeps its share";
  const GraphNode down = node("layers.0.mlp.down");
  EXPECT_EQ(down.workspace_bytes, hidden) << "the sum's part before the reduce-scatter";
  EXPECT_EQ(down.backward_workspace_bytes, hidden) << "the gathered gradient";
  EXPECT_EQ(graph.bytes_of(down.outputs), per_rank(hidden));
}

TEST(SequenceParallel, IsRefusedForInference) {
  GraphOptions options = options_of(true);
  options.purpose = GraphPurpose::kInference;
  EXPECT_MENTIONS(testing::input_error([&] { operator_graph(testing::llama(), options); }),
                  "sequence_parallel is for training; leave it off for inference");
}

TEST(LossBytes, SetTheWidthOfLogProbabilities) {
  const ModelConfig config = testing::gpt2();
  GraphOptions options;
  options.activation_bytes = 2;
  const SymbolicSize vocabulary = per_rank(kB * kS * config.vocab_size);
  const auto loss = [&] {
    const OperatorGraph graph = operator_graph(config, options);
    return graph.nodes().back();
  };
  EXPECT_EQ(loss().workspace_bytes, vocabulary * 4) << "half-precision logits are widened";
  options.loss_bytes = 2;
  EXPECT_TRUE(loss().workspace_bytes.is_zero());
  const OperatorGraph graph = operator_graph(config, options);
  EXPECT_EQ(graph.bytes_of({graph.nodes().back().saved[0]}), vocabulary * 2);
  options.loss_bytes = 3;
  EXPECT_MENTIONS(testing::input_error(loss), "loss_bytes is 3, expected 1, 2, 4 or 8");
}

TEST(AttentionBackward, StepsMakeEveryGradientAndFreeEveryMatrix) {
  for (const bool drops : {false, true}) {
    for (const AttentionMemory memory : {AttentionMemory::kStore, AttentionMemory::kInPlace, AttentionMemory::kFlash}) {
      GraphOptions options;
      options.attention = memory;
      const OperatorGraph graph = operator_graph(testing::bert(drops ? 0.1 : 0), options);
      const auto found = std::ranges::find(graph.nodes(), OpKind::kAttention, &GraphNode::kind);
      if (memory == AttentionMemory::kFlash) {
        EXPECT_TRUE(found->backward_steps.empty());
        EXPECT_TRUE(found->score_bytes.is_zero());
        continue;
      }
      std::vector<int> made;
      std::vector<int> freed;
      for (const BackwardStep& step : found->backward_steps) {
        made.insert(made.end(), step.makes.begin(), step.makes.end());
        freed.insert(freed.end(), step.frees.begin(), step.frees.end());
        const SymbolicSize spare = found->backward_workspace_bytes - step.workspace_bytes;
        EXPECT_GE(spare.evaluate({.batch = 1, .sequence = 8}), 0);
      }
      std::ranges::sort(made);
      std::ranges::sort(freed);
      EXPECT_EQ(made, found->inputs);
      // All that it kept, and its result's gradient.
      std::vector<int> kept = found->saved;
      kept.push_back(found->outputs[0]);
      std::ranges::sort(kept);
      EXPECT_EQ(freed, kept);
    }
  }
}

}  // namespace
}  // namespace gantry::spec
