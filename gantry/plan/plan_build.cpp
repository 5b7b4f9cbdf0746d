#include "gantry/plan/plan_build.h"

#include "gantry/base/hash.h"

namespace gantry::plan {

std::string model_hash(const spec::ModelConfig& model) {
  return base::content_hash(spec::config_to_hf_text(model, "bfloat16"));
}

TrainPlan plan_skeleton(const SearchInput& input, const cost::CostOptions& cost) {
  TrainPlan plan;
  plan.model = input.model_name;
  plan.model_hash = model_hash(input.model);
  plan.cluster = input.cluster.name;
  plan.profile = input.profile.name;
  plan.profile_hash = cost::profile_hash(input.profile);
  plan.dtype = cost.dtype;
  plan.flash_attention = cost.flash_attention;
  plan.chunked_loss = cost.chunked_loss;
  plan.sequence = input.sequence;
  plan.global_batch = input.global_batch;
  return plan;
}

void append_stages(TrainPlan& plan, const std::vector<StageChoice>& stages, const std::vector<PolicyChoice>& choices,
                   const std::vector<MeshFamily>& families) {
  int first_layer = 0;
  for (const StageChoice& choice : stages) {
    const PolicyChoice& policy = choices[static_cast<std::size_t>(choice.point.choice)];
    const StageFamily& family = *families[static_cast<std::size_t>(policy.family)].family;
    Stage stage;
    stage.first_layer = first_layer;
    stage.layers = choice.layers;
    stage.checkpointed = policy.checkpointed;
    stage.mesh = family.shape();
    stage.policy = family.policy(policy);
    plan.stages.push_back(std::move(stage));
    first_layer += choice.layers;
  }
}

}  // namespace gantry::plan
