#pragma once
// Plans for the launchers people already use, with a list of what each cannot express.
#include <string>
#include <string_view>
#include <vector>

#include "gantry/cost/cluster.h"
#include "gantry/plan/types.h"
#include "gantry/spec/config.h"

namespace gantry::plan {

struct Export {
  std::string text;                         ///< flags (megatron), TOML (torchtitan), JSON (deepspeed)
  std::vector<std::string> cannot_express;  ///< knobs of the plan that are lost, each with what was written instead
};

/// `format`: "megatron", "torchtitan", "deepspeed" or "json". InputError for another.
Export export_plan(const TrainPlan& plan, const spec::ModelConfig& model, const cost::Cluster& cluster,
                   std::string_view format);

/// The plan that Megatron-LM would run with these flags ("--tensor-model-parallel-size 4 ..."). Model, sequence,
/// cluster and global batch come from `base`. Flags that do not affect a plan are returned in `ignored`; InputError for
/// a plan-relevant one with a bad value.
TrainPlan plan_from_megatron(std::string_view flags, const TrainPlan& base, const spec::ModelConfig& model,
                             const cost::Cluster& cluster, std::vector<std::string>* ignored);

}  // namespace gantry::plan
