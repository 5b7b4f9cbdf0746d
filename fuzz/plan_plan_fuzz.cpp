// plan.json: any text is refused or gives a plan that survives being written and read again, and that the verifier can
// judge.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "gantry/base/check.h"
#include "gantry/plan/plan_file.h"
#include "gantry/plan/verify.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gantry;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  plan::TrainPlan plan;
  try {
    plan = plan::plan_from_json(base::parse_json(text, "fuzz"), "fuzz");
  } catch (const base::InputError&) {
    return 0;
  }
  const std::string written = plan::plan_to_text(plan);  // an accepted plan must not be refused any more
  if (plan::plan_from_json(base::parse_json(written, "again"), "again") != plan) std::abort();
  spec::ModelConfig model;
  model.num_layers = plan.num_layers();
  model.num_heads = model.num_kv_heads = 16;
  model.intermediate_size = 1024;
  cost::Cluster cluster;
  cluster.nodes = 2;
  cluster.devices_per_node = 4;
  for (const plan::Issue& issue : plan::verify(plan, model, cluster)) {
    if (issue.field.empty() || issue.message.empty()) std::abort();
  }
  return 0;
}
