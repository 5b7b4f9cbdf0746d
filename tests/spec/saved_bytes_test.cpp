// What a layer keeps for backward, derived from the graph, against the closed form c1 * B*S*H + c2 * A*S^2*B.
#include <gtest/gtest.h>

#include <set>

#include "gantry/spec/operator_graph.h"
#include "tests/spec/spec_test_support.h"

namespace gantry::spec {
namespace {

using testing::kB;
using testing::kS;

/// Bytes that the block keeps, over B*S*H and over A*S^2*B, without the norms' statistics.
struct Coefficients {
  double c1;
  double c2;
};

Coefficients kept(const ModelConfig& config, const GraphOptions& options, int statistics_bytes) {
  const OperatorGraph graph = operator_graph(config, options);
  const SymbolicSize saved = graph.saved_bytes(graph.layer(1));
  const auto coefficient = [&](int sequence_power, int tp_power) {
    double value = 0;
    for (const auto& term : saved.terms()) {
      if (term.powers[1] == sequence_power && term.powers[3] == tp_power) value += term.coefficient;
    }
    return value;
  };
  // With one rank; what tp divides is the subject of another test.
  const double linear = coefficient(1, 0) + coefficient(1, -1) - 2.0 * statistics_bytes;
  return {linear / static_cast<double>(config.hidden_size),
          (coefficient(2, 0) + coefficient(2, -1)) / static_cast<double>(config.num_heads)};
}

struct TableRow {
  const char* name;
  GraphOptions options;
  int statistics_bytes;  ///< of a norm, a token
  double c1;
  double c2;
};

// The per-layer table of BERT and GPT-2 with dropout: baseline of stock torch >= 1.11, and the memory-saving modes.
std::vector<TableRow> saved_bytes_table() {
  GraphOptions stock;
  GraphOptions in_place = stock;
  in_place.activation = ActivationMemory::kInPlace;
  in_place.norm = NormMemory::kInPlace;
  in_place.attention = AttentionMemory::kInPlace;
  GraphOptions bits = in_place;
  bits.masks = MaskMemory::kBit;
  GraphOptions replay = in_place;
  replay.masks = MaskMemory::kReplay;
  GraphOptions recompute = replay;
  recompute.activation = ActivationMemory::kRecompute;
  GraphOptions cpu = stock;
  cpu.masks = MaskMemory::kActivation;
  const auto half = [](GraphOptions options) {
    options.activation_bytes = 2;
    return options;
  };
  return {{"stock_fp32", stock, 8, 66, 9},
          {"stock_bf16", half(stock), 8, 34, 5},
          {"stock_cpu_fp32", cpu, 8, 72, 12},
          {"in_place_fp32", in_place, 4, 46, 5},
          {"in_place_bf16", half(in_place), 4, 26, 3},
          {"bit_masks_fp32", bits, 4, 40.75, 4.125},
          {"bit_masks_bf16", half(bits), 4, 20.75, 2.125},
          {"replay_fp32", replay, 4, 40, 4},
          {"replay_bf16", half(replay), 4, 20, 2},
          {"fused_mlp_fp32", recompute, 4, 40, 4},
          {"fused_mlp_bf16", half(recompute), 4, 20, 2}};
}

class SavedBytesTable : public ::testing::TestWithParam<TableRow> {};

TEST_P(SavedBytesTable, OfALayerEqualTheTable) {
  ModelConfig gpt2 = testing::gpt2();
  gpt2.num_layers = 3;
  for (const ModelConfig& config : {testing::bert(), gpt2}) {
    const Coefficients found = kept(config, GetParam().options, GetParam().statistics_bytes);
    EXPECT_EQ(found.c1, GetParam().c1) << config.model_type;
    EXPECT_EQ(found.c2, GetParam().c2) << config.model_type;
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, SavedBytesTable, ::testing::ValuesIn(saved_bytes_table()),
                         [](const auto& row) { return std::string(row.param.name); });

TEST(SavedBytes, OfABertLayerEqualWhatTorchKeeps) {
  // Unique storages under saved-tensor hooks, transformers' BERT with eager attention, torch 2.13.0 on CPU: three
  // layers less two, micro-batch 2.
  GraphOptions options;
  options.masks = MaskMemory::kActivation;
  const OperatorGraph graph = operator_graph(testing::bert(), options);
  const SymbolicSize layer = graph.saved_bytes(graph.layer(1));
  EXPECT_EQ(layer.evaluate({.batch = 2, .sequence = 48}), 996864);
  EXPECT_EQ(layer.evaluate({.batch = 2, .sequence = 64}), 1378304);
}

TEST(SavedBytes, FlashAttentionKeepsOutputAndRowSumsOnly) {
  GraphOptions flash;
  flash.attention = AttentionMemory::kFlash;
  const ModelConfig config = testing::bert();
  const Coefficients found = kept(config, flash, 8);
  EXPECT_EQ(found.c2, 0);
  EXPECT_EQ(found.c1, 66 + 4.0 * static_cast<double>(config.num_heads) / static_cast<double>(config.hidden_size));
}

TEST(SavedBytes, WithoutDropoutNoMaskAndOneCopyOfTheProbabilities) {
  ModelConfig config = testing::bert(0);
  config.dropout = 0;
  const Coefficients found = kept(config, {}, 8);
  EXPECT_EQ(found.c1, 64);
  EXPECT_EQ(found.c2, 4);
  const OperatorGraph graph = operator_graph(config);
  for (const GraphNode& node : graph.nodes()) EXPECT_NE(node.kind, OpKind::kDropout);
}

TEST(SavedBytes, GatedUnitsKeepFourOrTwoTensors) {
  const ModelConfig config = testing::llama();
  const auto mlp = [&](ActivationMemory mode) {
    GraphOptions options;
    options.activation = mode;
    const OperatorGraph graph = operator_graph(config, options);
    std::set<int> kept;
    for (const GraphNode& node : graph.nodes()) {
      const bool inner = node.name == "layers.0.mlp.activation" || node.name == "layers.0.mlp.down";
      if (inner) kept.insert(node.saved.begin(), node.saved.end());
    }
    return graph.bytes_of({kept.begin(), kept.end()});
  };
  const SymbolicSize one = per_rank(kB * kS * config.intermediate_size * 4);
  EXPECT_EQ(mlp(ActivationMemory::kStore), one * 4) << "gate, its activation, up, product";
  EXPECT_EQ(mlp(ActivationMemory::kRecompute), one * 2) << "gate and up";
  EXPECT_EQ(mlp(ActivationMemory::kInPlace), one * 2);
}

TEST(SavedBytes, ChunkedLossKeepsNoLogits) {
  const ModelConfig config = testing::gpt2();
  const OperatorGraph stock = operator_graph(config);
  const SymbolicSize logits = per_rank(kB * kS * config.vocab_size * 4);
  const SymbolicSize final_norm = kB * kS * config.hidden_size * 8 + kB * kS * 8;
  EXPECT_EQ(stock.saved_bytes(stock.after_layers()), final_norm + logits + kB * kS * 8);
  GraphOptions options;
  options.loss = LossMemory::kChunked;
  options.loss_chunk_tokens = 128;
  const OperatorGraph chunked = operator_graph(config, options);
  EXPECT_EQ(chunked.saved_bytes(chunked.after_layers()), final_norm + kB * kS * (8 + 4));
  EXPECT_EQ(chunked.nodes().back().workspace_bytes, per_rank(128 * config.vocab_size * 4));
  EXPECT_EQ(chunked.matrix_flops(chunked.all()), stock.matrix_flops(stock.all()));
}

}  // namespace
}  // namespace gantry::spec
