// gantry info MODEL: what a model is, from its configuration and tensor table; no weight is read.
#include <fmt/ranges.h>

#include <cstdio>

#include "gantry/base/progress.h"
#include "gantry/cli/verbs.h"
#include "gantry/models/load.h"
#include "gantry/spec/memory.h"
#include "gantry/spec/tensor_table.h"

namespace gantry::cli {
namespace {

struct InfoOptions {
  bool tensors = false;
  bool json = false;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit("tensors", tensors, "list every tensor");
    visit("json", json, "print one JSON object");
  }
};

base::OrderedJson describe(const spec::ModelConfig& c, bool tensors) {
  base::OrderedJson json;
  json["family"] = spec::family_name(c.family);
  json["model_type"] = c.model_type;
  json["parameters"] = spec::parameter_count(c);
  json["layers"] = c.num_layers;
  json["hidden_size"] = c.hidden_size;
  json["heads"] = c.num_heads;
  json["kv_heads"] = c.num_kv_heads;
  json["head_dim"] = c.head_dim;
  json["intermediate_size"] = c.intermediate_size;
  json["vocab_size"] = c.vocab_size;
  json["max_positions"] = c.max_positions;
  json["activation"] = spec::activation_name(c.activation);
  json["tied_embeddings"] = c.tied_embeddings;
  for (const auto& [name, bytes] : {std::pair{"fp32", 4}, std::pair{"bf16", 2}}) {
    const spec::MemoryByPurpose memory = spec::memory_summary(c, bytes);
    base::OrderedJson entry;
    entry["weight_bytes"] = memory.weight_bytes;
    for (std::size_t role = 0; role < spec::kTensorRoleCount; ++role) {
      entry["weight_bytes_by_role"][std::string(spec::role_name(static_cast<spec::TensorRole>(role)))] =
          memory.weight_bytes_by_role[role];
    }
    entry["kv_cache_bytes_per_token"] = memory.kv_cache_bytes_per_token;
    entry["training_bytes"] = memory.training_bytes();
    entry["training_bytes_by_state"] = {{"weights", memory.weight_bytes},
                                        {"master_remainders", memory.master_remainder_bytes},
                                        {"gradients", memory.gradient_bytes},
                                        {"moments", memory.optimizer_bytes}};
    json["memory"][name] = entry;
  }
  if (!tensors) return json;
  for (const spec::TensorSpec& tensor : spec::tensor_table(c)) {
    json["tensors"].push_back({{"name", tensor.name}, {"shape", tensor.shape}, {"role", spec::role_name(tensor.role)}});
  }
  return json;
}

void print_model(const std::string& path, const spec::ModelConfig& c, bool tensors) {
  std::printf("%s\n", path.c_str());
  std::printf("  family       %s (%s)%s\n", std::string(spec::family_name(c.family)).c_str(), c.model_type.c_str(),
              c.tied_embeddings ? ", embedding and head tied" : "");
  std::printf("  parameters   %.1f million\n", static_cast<double>(spec::parameter_count(c)) / 1e6);
  std::printf("  layers       %ld of hidden size %ld\n", c.num_layers, c.hidden_size);
  std::printf("  attention    %ld heads of %ld, %ld key/value heads\n", c.num_heads, c.head_dim, c.num_kv_heads);
  std::printf("  MLP          %ld, %s\n", c.intermediate_size,
              std::string(spec::activation_name(c.activation)).c_str());
  std::printf("  vocabulary   %ld tokens\n", c.vocab_size);
  std::printf("  positions    %ld\n\n", c.max_positions);
  std::printf("  %-34s %12s %12s\n", "memory", "fp32", "bf16");
  const spec::MemoryByPurpose wide = spec::memory_summary(c, 4), narrow = spec::memory_summary(c, 2);
  const auto row = [](const std::string& name, std::uint64_t a, std::uint64_t b) {
    if (a == 0) return;
    std::printf("  %-34s %12s %12s\n", name.c_str(), base::format_bytes(a).c_str(), base::format_bytes(b).c_str());
  };
  for (std::size_t role = 0; role < spec::kTensorRoleCount; ++role) {
    row("  " + std::string(spec::role_name(static_cast<spec::TensorRole>(role))), wide.weight_bytes_by_role[role],
        narrow.weight_bytes_by_role[role]);
  }
  row("weights", wide.weight_bytes, narrow.weight_bytes);
  row("KV cache for 1,024 tokens", 1024 * wide.kv_cache_bytes_per_token, 1024 * narrow.kv_cache_bytes_per_token);
  row("training states (AdamW)", wide.training_bytes(), narrow.training_bytes());
  if (!tensors) return;
  std::printf("\n");
  for (const spec::TensorSpec& tensor : spec::tensor_table(c)) {
    std::printf("  %-60s [%s]\n", tensor.name.c_str(), fmt::format("{}", fmt::join(tensor.shape, ", ")).c_str());
  }
}

}  // namespace

void add_info(Command& program) {
  Command& verb = program.add_verb("info", "What a model is: family, sizes, memory by purpose");
  struct State {
    std::string model;
    InfoOptions options;
  };
  auto state = std::make_shared<State>();
  verb.positional("MODEL", state->model, "model folder or .gguf file");
  verb.options(state->options);
  verb.on_run([state] {
    const spec::ModelConfig config = models::load_config(state->model);
    if (state->options.json) {
      std::printf("%s\n", describe(config, state->options.tensors).dump().c_str());
    } else {
      print_model(state->model, config, state->options.tensors);
    }
    return 0;
  });
}

}  // namespace gantry::cli
