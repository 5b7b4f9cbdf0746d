// The operator order of each family.
#include <tuple>

#include "gantry/spec/graph_builder_internal.h"

namespace gantry::spec::internal {
namespace {

SymbolicSize mlp_extent(const ModelConfig& config) { return per_rank(config.intermediate_size); }

std::vector<int> token_ids(GraphBuilder& graph) {
  return {graph.input("input_ids", {Symbol::kBatch, Symbol::kSequence})};
}

LinearMemory up_memory(const GraphBuilder& graph) {
  switch (graph.options().activation) {
    case ActivationMemory::kRerun: return LinearMemory::kRerun;
    case ActivationMemory::kInt8: return LinearMemory::kInt8;
    default: return LinearMemory::kInput;
  }
}

/// Projections, rotary positions and attention; the result of the output projection. `qkv` and `out` are weights.
int attention_block(GraphBuilder& graph, int x, std::vector<int> qkv, std::vector<int> out) {
  const ModelConfig& config = graph.config();
  const AttentionMemory memory = graph.options().attention;
  const LinearMemory int8 = memory == AttentionMemory::kInt8 ? LinearMemory::kInt8 : LinearMemory::kInput;
  auto parts = graph.linear(x, {.name = "attention.qkv",
                                .weights = std::move(qkv),
                                .in = config.hidden_size,
                                .parts = {{"q", graph.q_extent()}, {"k", graph.kv_extent()}, {"v", graph.kv_extent()}},
                                .split = Split::kColumns,
                                .bias = config.qkv_bias,
                                .memory = memory == AttentionMemory::kRerun ? LinearMemory::kRerun : int8});
  if (config.family == Family::kLlama) std::tie(parts[0], parts[1]) = graph.rope(parts[0], parts[1]);
  const int context = graph.attention(parts[0], parts[1], parts[2]);
  return graph.linear(context, {.name = "attention.output",
                                .weights = std::move(out),
                                .in = graph.q_extent(),
                                .parts = {{"", config.hidden_size}},
                                .split = Split::kRows,
                                .bias = config.output_bias,
                                .memory = int8})[0];
}

int down_projection(GraphBuilder& graph, int x, std::vector<int> weights) {
  const ModelConfig& config = graph.config();
  return graph.linear(x, {.name = "mlp.down",
                          .weights = std::move(weights),
                          .in = mlp_extent(config),
                          .parts = {{"", config.hidden_size}},
                          .split = Split::kRows,
                          .bias = config.mlp_bias})[0];
}

int mlp_block(GraphBuilder& graph, int x, std::vector<int> up, std::vector<int> down) {
  const ModelConfig& config = graph.config();
  const int hidden = graph.linear(x, {.name = "mlp.up",
                                      .weights = std::move(up),
                                      .in = config.hidden_size,
                                      .parts = {{"", mlp_extent(config)}},
                                      .split = Split::kColumns,
                                      .bias = config.mlp_bias,
                                      .memory = up_memory(graph)})[0];
  return down_projection(graph, graph.activation("mlp.activation", hidden), std::move(down));
}

int gated_mlp_block(GraphBuilder& graph, int x, std::vector<int> gate_up, std::vector<int> down) {
  const ModelConfig& config = graph.config();
  const auto parts = graph.linear(x, {.name = "mlp.gate_up",
                                      .weights = std::move(gate_up),
                                      .in = config.hidden_size,
                                      .parts = {{"gate", mlp_extent(config)}, {"up", mlp_extent(config)}},
                                      .split = Split::kColumns,
                                      .bias = config.mlp_bias,
                                      .memory = up_memory(graph)});
  return down_projection(graph, graph.gated_activation("mlp.activation", parts[0], parts[1]), std::move(down));
}

}  // namespace

void build_llama(GraphBuilder& graph) {
  const auto embedding = graph.weights({"embed_tokens."});
  int x = graph.embedding(token_ids(graph), embedding);
  for (int i = 0; i < graph.config().num_layers; ++i) {
    graph.begin_layer();
    const int a = attention_block(graph, graph.norm("attention.norm", x, graph.weights({"input_layernorm."})),
                                  graph.weights({"q_proj.", "k_proj.", "v_proj."}), graph.weights({"o_proj."}));
    x = graph.residual_add("attention.residual", a, x);
    const int m = gated_mlp_block(graph, graph.norm("mlp.norm", x, graph.weights({"post_attention_layernorm."})),
                                  graph.weights({"gate_proj.", "up_proj."}), graph.weights({"down_proj."}));
    x = graph.residual_add("mlp.residual", m, x);
    graph.end_layer();
  }
  x = graph.norm("final_norm", x, graph.weights({"model.norm."}));
  graph.head_and_loss(x, graph.config().tied_embeddings ? embedding : graph.weights({"lm_head."}), false);
}

void build_gpt2(GraphBuilder& graph) {
  auto ids = token_ids(graph);
  ids.push_back(graph.input("position_ids", {Symbol::kSequence}));
  int x = graph.dropout("embedding.dropout", graph.embedding(ids, graph.weights({"wte.", "wpe."})));
  for (int i = 0; i < graph.config().num_layers; ++i) {
    graph.begin_layer();
    const int a = attention_block(graph, graph.norm("attention.norm", x, graph.weights({"ln_1."})),
                                  graph.weights({"attn.c_attn."}), graph.weights({"attn.c_proj."}));
    x = graph.residual_add("attention.residual", graph.dropout("attention.dropout", a), x);
    const int m = mlp_block(graph, graph.norm("mlp.norm", x, graph.weights({"ln_2."})), graph.weights({"mlp.c_fc."}),
                            graph.weights({"mlp.c_proj."}));
    x = graph.residual_add("mlp.residual", graph.dropout("mlp.dropout", m), x);
    graph.end_layer();
  }
  x = graph.norm("final_norm", x, graph.weights({"ln_f."}));
  graph.head_and_loss(x, graph.weights({graph.config().tied_embeddings ? "wte." : "lm_head."}), false);
}

void build_bert(GraphBuilder& graph) {
  const ModelConfig& config = graph.config();
  auto ids = token_ids(graph);
  ids.push_back(graph.input("position_ids", {Symbol::kSequence}));
  ids.push_back(graph.input("token_type_ids", {Symbol::kBatch, Symbol::kSequence}));
  const auto tables = graph.weights({"word_embeddings.", "position_embeddings.", "token_type_embeddings."});
  int x = graph.embedding(ids, tables);
  x = graph.dropout("embedding.dropout", graph.norm("embedding.norm", x, graph.weights({"embeddings.LayerNorm."})));
  for (int i = 0; i < config.num_layers; ++i) {
    graph.begin_layer();
    int a = attention_block(graph, x, graph.weights({"attention.self."}), graph.weights({"attention.output.dense."}));
    a = graph.residual_add("attention.residual", graph.dropout("attention.dropout", a), x);
    x = graph.norm("attention.norm", a, graph.weights({"attention.output.LayerNorm."}));
    // The digit before the dot tells the block's own output from the attention's.
    const std::string output = std::to_string(i) + ".output.";
    int m = mlp_block(graph, x, graph.weights({"intermediate.dense."}), graph.weights({output + "dense."}));
    m = graph.residual_add("mlp.residual", graph.dropout("mlp.dropout", m), x);
    x = graph.norm("mlp.norm", m, graph.weights({output + "LayerNorm."}));
    graph.end_layer();
  }
  x = graph.linear(x, {.name = "head.transform",
                       .weights = graph.weights({"transform.dense.", "lm_head.dense."}),
                       .in = config.hidden_size,
                       .parts = {{"", config.hidden_size}},
                       .bias = true})[0];
  x = graph.activation("head.activation", x);
  x = graph.norm("head.norm", x, graph.weights({"transform.LayerNorm.", "lm_head.layer_norm."}));
  auto head = config.tied_embeddings ? std::vector<int>{tables[0]} : graph.weights({"decoder.weight"});
  for (const int bias : graph.weights({"cls.predictions.bias", "lm_head.bias"})) head.push_back(bias);
  graph.head_and_loss(x, head, true);
}

}  // namespace gantry::spec::internal
