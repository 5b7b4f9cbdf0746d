#pragma once
// What `plan` and `simulate` are asked about: model, cluster, batch.
#include <cstdint>
#include <optional>
#include <string>

#include "gantry/plan/search.h"

namespace gantry::cli::planner {

struct TargetOptions {
  std::string model;
  std::optional<std::string> cluster;
  std::optional<std::string> profile;
  std::int64_t batch = 32;
  std::int64_t seq = 2048;
  std::string dtype;
  bool flash_attention = true;
  bool chunked_loss = false;
  double device_memory = 0;
  bool margin = true;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit.group("What to train, and on what");
    visit("model", model, "name (gpt-22b, llama3-8b, bert-large, ...), model folder, config.json or .gguf file");
    visit("cluster", cluster,
          "l4-NxM, a100-NxM, h100-NxM, a10-NxM (nodes x devices), a cluster file, or this: this machine, the default");
    visit("profile", profile,
          "hardware profile instead of the cluster's: a shipped name or a file of `gantry profile`");
    visit("batch", batch, "sequences an iteration, over all devices");
    visit("seq", seq, "tokens a sequence");
    visit("dtype", dtype, "weights and activations: fp16, bf16 or fp32; default: what the profile measured");
    visit("flash_attention", flash_attention, "attention without S x S matrices");
    visit("chunked_loss", chunked_loss, "head and loss fused, without full logits; the full space tries both anyway");
    visit("device_memory", device_memory, "GiB a device may use; 0: the cluster's");
    visit("margin", margin, "Mist's empirical safety factor on predicted peaks");
  }
};

/// Model, cluster and profile by name or file; InputError for what does not exist or does not fit together.
plan::SearchInput search_input(const TargetOptions& options);
/// The same for a plan: what `options` leave out (model, cluster, profile) is what the plan names; batch and sequence
/// length are always the plan's. A cluster in `options` brings its own profile.
plan::SearchInput input_of_plan(const plan::TrainPlan& plan, TargetOptions options);
/// Gives the plan ranks where it has none; InputError naming `source` for a plan that this model and cluster cannot
/// run.
void require_sound(plan::TrainPlan& plan, const plan::SearchInput& input, const std::string& source);

}  // namespace gantry::cli::planner
