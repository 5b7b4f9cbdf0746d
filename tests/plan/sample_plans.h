#pragma once
// A small model, cluster and plan for the tests of the plan files, the verifier and the exporters.
#include "gantry/cost/cluster.h"
#include "gantry/plan/types.h"
#include "gantry/spec/config.h"

namespace gantry::plan {

// GPT-1.3B of the paper's ladder.
inline spec::ModelConfig sample_gpt() {
  spec::ModelConfig model;
  model.family = spec::Family::kGpt2;
  model.model_type = "gpt2";
  model.vocab_size = 50304;
  model.hidden_size = 2048;
  model.num_layers = 24;
  model.num_heads = 16;
  model.num_kv_heads = 16;
  model.head_dim = 128;
  model.intermediate_size = 8192;
  model.max_positions = 2048;
  model.activation = spec::Activation::kGeluTanh;
  model.qkv_bias = model.output_bias = model.mlp_bias = true;
  model.tied_embeddings = true;
  return model;
}

inline spec::ModelConfig sample_llama() {
  spec::ModelConfig model;
  model.family = spec::Family::kLlama;
  model.model_type = "llama";
  model.vocab_size = 128256;
  model.hidden_size = 4096;
  model.num_layers = 32;
  model.num_heads = 32;
  model.num_kv_heads = 8;
  model.head_dim = 128;
  model.intermediate_size = 14336;
  model.max_positions = 8192;
  model.rope.theta = 500000;
  return model;
}

inline cost::Cluster sample_cluster(int nodes, int devices_per_node) {
  cost::Cluster cluster;
  cluster.name = "l4-" + std::to_string(nodes) + "x" + std::to_string(devices_per_node);
  cluster.profile = "l4";
  cluster.nodes = nodes;
  cluster.devices_per_node = devices_per_node;
  return cluster;
}

// One stage of every layer count; all on meshes of 1 x (dp * tp).
inline TrainPlan sample_plan(const std::vector<int>& layers, int dp, int tp, int micro_batch, int accumulation) {
  TrainPlan plan;
  plan.model = "gpt-1.3b";
  plan.cluster = "l4-1x" + std::to_string(dp * tp * static_cast<int>(layers.size()));
  plan.profile = "l4";
  plan.sequence = 2048;
  plan.accumulation = accumulation;
  plan.global_batch = std::int64_t{micro_batch} * dp * accumulation;
  int first = 0;
  int rank = 0;
  for (const int count : layers) {
    Stage stage;
    stage.first_layer = first;
    stage.layers = count;
    stage.mesh = {1, dp * tp};
    for (int i = 0; i < dp * tp; ++i) stage.ranks.push_back(rank++);
    stage.policy.micro_batch = micro_batch;
    stage.policy.data_parallel = dp;
    stage.policy.tensor_parallel = tp;
    first += count;
    plan.stages.push_back(stage);
  }
  return plan;
}

}  // namespace gantry::plan
