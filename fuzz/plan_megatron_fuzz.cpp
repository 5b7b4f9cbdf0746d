// Megatron-LM flags: any text is refused or gives a sound plan, which comes back from its own export wherever nothing
// of it is lost.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "gantry/base/check.h"
#include "gantry/plan/export.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gantry;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  spec::ModelConfig model;
  model.vocab_size = model.intermediate_size = 1024;
  model.num_layers = 24;
  model.hidden_size = 256;
  model.num_heads = model.num_kv_heads = 16;
  model.head_dim = 16;
  cost::Cluster cluster;
  cluster.nodes = 2;
  cluster.devices_per_node = 4;
  plan::TrainPlan base;
  base.sequence = 128;
  base.global_batch = 32;
  base.dtype = "fp32";
  plan::TrainPlan plan;
  try {
    plan = plan::plan_from_megatron(text, base, model, cluster, nullptr);
  } catch (const base::InputError&) {
    return 0;
  }
  const plan::Export exported = plan::export_plan(plan, model, cluster, "megatron");
  if (exported.cannot_express.empty() &&
      plan::plan_from_megatron(exported.text, base, model, cluster, nullptr) != plan) {
    std::abort();
  }
  for (const std::string_view format : {"torchtitan", "deepspeed"}) export_plan(plan, model, cluster, format);
  return 0;
}
