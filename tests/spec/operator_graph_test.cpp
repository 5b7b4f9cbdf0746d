#include "gantry/spec/operator_graph.h"

#include <gtest/gtest.h>

#include <set>

#include "gantry/spec/sharding.h"
#include "tests/spec/spec_test_support.h"

namespace gantry::spec {
namespace {

using testing::kB;
using testing::kS;

const SymbolicSize kC = Symbol::kContext;

std::vector<ModelConfig> families() {
  ModelConfig untied = testing::bert();
  untied.tied_embeddings = false;
  ModelConfig biased = testing::llama();
  biased.qkv_bias = biased.output_bias = biased.mlp_bias = biased.tied_embeddings = true;
  return {testing::llama(), biased, testing::gpt2(), testing::bert(), untied, testing::roberta()};
}

std::vector<GraphOptions> all_options() {
  std::vector<GraphOptions> options(9);
  options[1].activation = ActivationMemory::kInPlace;
  options[1].norm = NormMemory::kInPlace;
  options[1].attention = AttentionMemory::kInPlace;
  options[2].activation = ActivationMemory::kRecompute;
  options[2].norm = NormMemory::kRecompute;
  options[2].attention = AttentionMemory::kFlash;
  options[2].masks = MaskMemory::kReplay;
  options[3].loss = LossMemory::kChunked;
  options[3].activation_bytes = options[3].weight_bytes = 2;
  options[4].purpose = GraphPurpose::kInference;
  options[5].purpose = GraphPurpose::kInference;
  options[5].attention = AttentionMemory::kFlash;
  options[6].activation = ActivationMemory::kRerun;
  options[6].attention = AttentionMemory::kRerun;
  options[6].norm = NormMemory::kRecompute;
  options[7].activation = ActivationMemory::kInt8;
  options[7].attention = AttentionMemory::kInt8;
  options[7].norm = NormMemory::kInt8;
  options[8] = options[7];
  options[8].purpose = GraphPurpose::kInference;
  return options;
}

// ---- structure
// -------------------------------------------------------------------------------------------------------

TEST(OperatorGraph, IsInExecutionOrder) {
  for (const ModelConfig& config : families()) {
    for (const GraphOptions& options : all_options()) {
      const OperatorGraph graph = operator_graph(config, options);
      const int tensors = static_cast<int>(graph.tensors().size());
      int layer = -1;
      for (int i = 0; i < graph.all().end; ++i) {
        const GraphNode& node = graph.nodes()[static_cast<std::size_t>(i)];
        SCOPED_TRACE(node.name);
        for (const int x : node.inputs) {
          ASSERT_TRUE(x >= 0 && x < tensors);
          EXPECT_LT(graph.tensors()[static_cast<std::size_t>(x)].producer, i) << "an edge backwards";
        }
        for (const int y : node.outputs) EXPECT_EQ(graph.tensors()[static_cast<std::size_t>(y)].producer, i);
        std::set<int> mine(node.inputs.begin(), node.inputs.end());
        mine.insert(node.outputs.begin(), node.outputs.end());
        for (const int x : node.saved) EXPECT_TRUE(mine.contains(x)) << "keeps what it neither reads nor makes";
        if (node.layer >= 0) layer = node.layer;
        EXPECT_TRUE(node.layer == layer || (node.layer == -1 && layer == config.num_layers - 1));
      }
    }
  }
}

TEST(OperatorGraph, RangesCoverTheGraph) {
  for (const ModelConfig& config : families()) {
    const OperatorGraph graph = operator_graph(config);
    EXPECT_EQ(graph.num_layers(), config.num_layers);
    int next = graph.before_layers().end;
    SymbolicSize saved = graph.saved_bytes(graph.before_layers());
    for (int i = 0; i < graph.num_layers(); ++i) {
      EXPECT_EQ(graph.layer(i).first, next);
      next = graph.layer(i).end;
      saved += graph.saved_bytes(graph.layer(i));
      EXPECT_EQ(graph.nodes()[static_cast<std::size_t>(next - 1)].layer, i);
    }
    EXPECT_EQ(graph.after_layers().first, next);
    EXPECT_EQ(saved + graph.saved_bytes(graph.after_layers()), graph.saved_bytes(graph.all()));
  }
}

TEST(OperatorGraph, UsesEveryTensorOfTheTable) {
  for (const ModelConfig& config : families()) {
    const auto table = tensor_table(config);
    for (const GraphOptions& options : all_options()) {
      const OperatorGraph graph = operator_graph(config, options);
      std::vector<int> uses(table.size());
      for (const GraphNode& node : graph.nodes()) {
        for (const int index : node.weights) {
          ++uses.at(static_cast<std::size_t>(index));
          EXPECT_EQ(table[static_cast<std::size_t>(index)].layer >= 0, node.layer >= 0);
        }
      }
      for (std::size_t i = 0; i < table.size(); ++i) {
        const bool shared = config.tied_embeddings && i == 0;
        EXPECT_EQ(uses[i], shared ? 2 : 1) << table[i].name;
      }
    }
  }
}

TEST(OperatorGraph, ABlockReadsOnlyTheHiddenState) {
  for (const ModelConfig& config : families()) {
    const OperatorGraph graph = operator_graph(config);
    for (int i = 0; i < graph.num_layers(); ++i) {
      const auto inputs = graph.inputs_of(graph.layer(i));
      ASSERT_EQ(inputs.size(), 1u);
      EXPECT_EQ(graph.bytes_of(inputs), kB * kS * config.hidden_size * 4);
    }
  }
}

// ---- flops
// -----------------------------------------------------------------------------------------------------------

// 2 flops a weight and token for all matrices but the look-up tables, and 4 S q for scores and their use.
SymbolicSize matrix_formula(const ModelConfig& config) {
  std::int64_t weights = 0;
  for (const TensorSpec& tensor : tensor_table(config)) {
    const bool table = tensor.role == TensorRole::kEmbedding || tensor.role == TensorRole::kPosition;
    if (tensor.shape.size() == 2 && !table) weights += tensor.numel();
  }
  if (config.tied_embeddings) weights += config.vocab_size * config.hidden_size;
  return kB * kS * 2 * weights + kB * kS * kS * 4 * config.q_size() * config.num_layers;
}

TEST(OperatorGraph, MatrixFlopsEqualTheClosedFormulas) {
  for (const ModelConfig& config : families()) {
    const OperatorGraph graph = operator_graph(config);
    const SymbolicSize whole = graph.matrix_flops(graph.all());
    const Bindings values{.batch = 3, .sequence = 96};
    EXPECT_EQ(whole.evaluate(values), matrix_formula(config).evaluate(values)) << config.model_type;
  }
}

TEST(OperatorGraph, ReproducesPublishedFlops) {
  // GPT-3 style block: 24 B S h^2 + 4 B S^2 h.
  ModelConfig gpt = testing::gpt2();
  const std::int64_t h = gpt.hidden_size;
  const OperatorGraph graph = operator_graph(gpt);
  EXPECT_EQ(graph.matrix_flops(graph.layer(0)) * Symbol::kTensorParallel,
            kB * kS * (24 * h * h) + kB * kS * kS * (4 * h));
}

TEST(OperatorGraph, ForwardFlopsEqualTheSumOverOperators) {
  // The nominal element-wise counts, written out: embedding sum 1 or 2, LayerNorm 8, GELU 10 (tanh) or 8 (erf), dropout
  // 2, residual 1, bias 1, softmax 6; RMSNorm 5, rotation 3, SiLU 5 and its gate 1.
  const auto total = [](const ModelConfig& config) {
    const OperatorGraph graph = operator_graph(config);
    return graph.forward_flops(graph.all()).evaluate({.batch = 2, .sequence = 8});
  };
  const double tokens = 2 * 8;
  const auto matrices = [](const ModelConfig& config) {
    return matrix_formula(config).evaluate({.batch = 2, .sequence = 8});
  };
  const double attention = 6 * 8;  // a head and query

  const ModelConfig llama = testing::llama();
  double layer = 64 * (5 + 5 + 1 + 1) + (64 + 16) * 3 + 8 * attention + 96 * 6;
  EXPECT_EQ(total(llama), matrices(llama) + tokens * (3 * layer + 64 * 5 + 320 * 6));

  const ModelConfig gpt2 = testing::gpt2();
  layer = 64 * (8 + 8 + 1 + 1 + 2 + 2) + (192 + 64 + 256 + 64) + 4 * attention + 256 * 10;
  EXPECT_EQ(total(gpt2), matrices(gpt2) + tokens * (64 * (1 + 2) + 2 * layer + 64 * 8 + 320 * 6));

  const ModelConfig bert = testing::bert();
  layer = 128 * (8 + 8 + 1 + 1 + 2 + 2) + (384 + 128 + 512 + 128) + 2 * attention + 512 * 8;
  const double head = 128 * (1 + 8 + 8) + 320 * (1 + 6);
  EXPECT_EQ(total(bert), matrices(bert) + tokens * (128 * (2 + 8 + 2) + 3 * layer + head));
}

TEST(OperatorGraph, BackwardIsTwiceForwardAndRecomputationAdds) {
  const ModelConfig config = testing::llama();
  const OperatorGraph stock = operator_graph(config);
  SymbolicSize backward;
  for (const GraphNode& node : stock.nodes()) backward += node.backward_matrix_flops;
  EXPECT_EQ(backward, stock.matrix_flops(stock.all()) * 2);
  GraphOptions flash;
  flash.attention = AttentionMemory::kFlash;
  const OperatorGraph graph = operator_graph(config, flash);
  for (const GraphNode& node : graph.nodes()) {
    if (node.kind != OpKind::kAttention) continue;
    EXPECT_EQ(node.matrix_flops, per_rank(kB * kS * (kS + 1) * (2 * config.q_size()))) << "half of the scores";
    EXPECT_EQ(node.backward_matrix_flops, node.matrix_flops * 2.5);
  }
  GraphOptions recompute;
  recompute.norm = NormMemory::kRecompute;
  const OperatorGraph again = operator_graph(config, recompute);
  EXPECT_GT(again.backward_flops(again.all()).evaluate({.batch = 1, .sequence = 1}),
            stock.backward_flops(stock.all()).evaluate({.batch = 1, .sequence = 1}));
}

// ---- tensor parallelism
// ----------------------------------------------------------------------------------------------

TEST(OperatorGraph, AllReducesFollowRowParallelLinears) {
  for (const ModelConfig& config : families()) {
    const OperatorGraph graph = operator_graph(config);
    const SymbolicSize hidden = kB * kS * config.hidden_size * 4;
    for (const int layer : {0, 1}) {
      SymbolicSize forward;
      SymbolicSize backward;
      for (int i = graph.layer(layer).first; i < graph.layer(layer).end; ++i) {
        const GraphNode& node = graph.nodes()[static_cast<std::size_t>(i)];
        forward += node.all_reduce_bytes;
        backward += node.backward_all_reduce_bytes;
        const bool row_parallel = node.name.ends_with("attention.output") || node.name.ends_with("mlp.down");
        EXPECT_EQ(!node.all_reduce_bytes.is_zero(), row_parallel) << node.name;
      }
      EXPECT_EQ(forward, hidden * 2);
      EXPECT_EQ(backward, hidden * 2);
    }
  }
}

TEST(OperatorGraph, RanksShareLinearsAndRepeatNorms) {
  const OperatorGraph graph = operator_graph(testing::gpt2());
  const Bindings one{.batch = 2, .sequence = 8};
  const Bindings four{.batch = 2, .sequence = 8, .tensor_parallel = 4};
  for (const GraphNode& node : graph.nodes()) {
    if (node.layer < 0) continue;
    const double share = node.forward_flops().evaluate(four) / node.forward_flops().evaluate(one);
    switch (node.kind) {
      case OpKind::kNorm:
      case OpKind::kDropout:
      case OpKind::kResidualAdd: EXPECT_EQ(share, 1) << node.name; break;
      case OpKind::kAttention:
      case OpKind::kActivation: EXPECT_EQ(share, 0.25) << node.name; break;
      // The bias of a row-parallel linear is added in full on each rank.
      default: EXPECT_NEAR(share, 0.25, 0.01) << node.name;
    }
  }
}

TEST(OperatorGraph, WeightElementsOfOneRankAddUpToTheModel) {
  for (const ModelConfig& config : families()) {
    SymbolicSize total;
    const OperatorGraph graph = operator_graph(config);
    for (const GraphNode& node : graph.nodes()) total += node.weight_elements;
    const std::int64_t twice = config.tied_embeddings ? config.vocab_size * config.hidden_size : 0;
    EXPECT_EQ(total.evaluate({}), static_cast<double>(parameter_count(config) + twice));
  }
}

TEST(OperatorGraph, RepeatsKeyValueHeadsPastTheirNumber) {
  const ModelConfig config = testing::llama();  // 8 heads of 8, 2 key/value heads
  GraphOptions options;
  options.kv_heads_repeated = true;
  const OperatorGraph graph = operator_graph(config, options);
  const GraphNode& qkv = graph.nodes()[static_cast<std::size_t>(graph.layer(0).first + 1)];
  ASSERT_EQ(qkv.name, "layers.0.attention.qkv");
  EXPECT_EQ(qkv.weight_elements, per_rank(64 * 64) + 2 * 8 * 64);
  EXPECT_EQ(qkv.matrix_flops, per_rank(kB * kS * (2 * 64 * 64)) + kB * kS * (2 * 64 * 16));
}

TEST(Sharding, ExplainsItsRefusals) {
  const ModelConfig config = testing::llama();
  EXPECT_FALSE(tensor_parallel_refusal(config, 1).has_value());
  EXPECT_FALSE(tensor_parallel_refusal(config, 2).has_value());
  EXPECT_FALSE(tensor_parallel_refusal(config, 8).has_value()) << "two heads, four times each";
  EXPECT_TRUE(repeats_kv_heads(config, 4));
  EXPECT_FALSE(repeats_kv_heads(config, 2));
  EXPECT_EQ(tensor_parallel_refusal(config, 3), "8 attention heads do not divide over 3 tensor-parallel ranks");
  EXPECT_EQ(tensor_parallel_refusal(config, 0), "0 tensor-parallel ranks are not a positive number");
  ModelConfig odd = config;
  odd.intermediate_size = 97;
  EXPECT_EQ(tensor_parallel_refusal(odd, 2), "MLP size 97 does not divide over 2 tensor-parallel ranks");
  odd.num_heads = 12;
  odd.num_kv_heads = 3;
  EXPECT_EQ(tensor_parallel_refusal(odd, 2),
            "3 key/value heads neither divide over 2 tensor-parallel ranks nor repeat evenly");
}

// ---- traffic and inference
// -------------------------------------------------------------------------------------------

TEST(OperatorGraph, CountsTheTrafficOfALinear) {
  const ModelConfig config = testing::gpt2();
  const OperatorGraph graph = operator_graph(config);
  const GraphNode& up = graph.nodes()[static_cast<std::size_t>(graph.layer(0).end - 5)];
  ASSERT_EQ(up.name, "layers.0.mlp.up");
  const SymbolicSize weights = per_rank(64 * 256 + 256) * 4;
  const SymbolicSize x = kB * kS * 64 * 4;
  const SymbolicSize y = per_rank(kB * kS * 256 * 4);
  EXPECT_EQ(up.bytes_read, x + weights);
  EXPECT_EQ(up.bytes_written, y);
  EXPECT_EQ(up.backward_bytes, x * 2 + y + weights * 2) << "input, its gradient, output gradient, weights, theirs";
}

TEST(OperatorGraph, InferenceKeepsNothingAndReadsTheCache) {
  for (const ModelConfig& config : families()) {
    GraphOptions options;
    options.purpose = GraphPurpose::kInference;
    const OperatorGraph graph = operator_graph(config, options);
    options.activation = ActivationMemory::kRerun;
    options.norm = NormMemory::kInt8;
    const OperatorGraph rerun = operator_graph(config, options);
    EXPECT_EQ(rerun.tensors().size(), graph.tensors().size()) << "memory modes are for training";
    EXPECT_EQ(rerun.forward_flops(rerun.all()), graph.forward_flops(graph.all()));
    EXPECT_TRUE(graph.saved_bytes(graph.all()).is_zero());
    EXPECT_TRUE(graph.backward_flops(graph.all()).is_zero());
    EXPECT_EQ(graph.nodes().back().kind, OpKind::kHead);
    for (const GraphNode& node : graph.nodes()) {
      EXPECT_NE(node.kind, OpKind::kDropout);
      if (node.kind != OpKind::kAttention || !config.is_decoder()) continue;
      EXPECT_EQ(node.matrix_flops, per_rank(kB * kS * kC * (4 * config.q_size())));
      // One new token: the cache outweighs all else that attention reads.
      const double cache = 2.0 * 4 * 4096 * static_cast<double>(config.kv_size());
      EXPECT_GE(node.bytes_read.evaluate({.batch = 1, .sequence = 1, .context = 4096}), cache);
    }
    const GraphNode& head = graph.nodes().back();
    const SymbolicSize rows = config.is_decoder() ? kB : kB * kS;
    EXPECT_EQ(head.matrix_flops, per_rank(rows * (2 * config.hidden_size * config.vocab_size)));
  }
}

TEST(OperatorGraph, RefusesAbsurdOptions) {
  GraphOptions options;
  options.activation_bytes = 3;
  EXPECT_MENTIONS(testing::input_error([&] { operator_graph(testing::llama(), options); }),
                  "activation_bytes is 3, expected 1, 2, 4 or 8");
  options = {};
  options.loss_chunk_tokens = 0;
  EXPECT_MENTIONS(testing::input_error([&] { operator_graph(testing::llama(), options); }), "loss_chunk_tokens is 0");
}

}  // namespace
}  // namespace gantry::spec
