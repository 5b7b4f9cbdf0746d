#include "gantry/cli/layers_bench/shapes.h"

#include "gantry/base/check.h"

namespace gantry::cli::layers_bench {

spec::ModelConfig layer_config(const std::string& family, std::int64_t layers, double dropout) {
  spec::ModelConfig config;
  config.model_type = family;
  config.hidden_size = 1024;
  config.num_layers = layers;
  config.num_heads = config.num_kv_heads = 16;
  config.head_dim = 64;
  config.intermediate_size = 4096;
  config.max_positions = 4096;
  config.dropout = config.attention_dropout = dropout;
  if (family == "bert") {
    config.family = spec::Family::kBert;
    config.activation = spec::Activation::kGeluErf;
  } else if (family == "gpt2") {
    config.family = spec::Family::kGpt2;
    config.activation = spec::Activation::kGeluTanh;
  } else if (family == "llama") {
    config.family = spec::Family::kLlama;
    config.activation = spec::Activation::kSilu;
    config.hidden_size = 2048;
    config.num_heads = 32;
    config.num_kv_heads = 8;
    config.intermediate_size = 8192;
    config.dropout = config.attention_dropout = 0;
  } else {
    base::fail_input("family is '{}', expected bert, gpt2 or llama", family);
  }
  return config;
}

layers::LayerMemory uniform(layers::MemoryMode mode) { return {.attention = mode, .mlp = mode, .norm = mode}; }

layers::LayerMemory arm_memory(const std::string& arm) {
  layers::LayerMemory memory = uniform(layers::MemoryMode::kRecompute);
  if (arm == "rerun-mlp") {
    memory.mlp = layers::MemoryMode::kRerun;
  } else if (arm == "rerun-attention") {
    memory.attention = layers::MemoryMode::kRerun;
  } else {
    memory = uniform(spec::parse_memory_mode(arm));
  }
  return memory;
}

std::unique_ptr<BenchServer> python_server(const Bench& bench, const std::string& script, base::OrderedJson settings) {
  settings["threads"] = bench.threads;
  return std::make_unique<BenchServer>(
      script, std::vector<std::string>{bench.python, bench.script(script), "--settings", settings.dump()});
}

}  // namespace gantry::cli::layers_bench
