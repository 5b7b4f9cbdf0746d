#include "gantry/plan/space.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "gantry/base/check.h"

namespace gantry::plan {
namespace {

using cost::LayerMode;

const std::vector<double> kCoarseRatios{0, .25, .375, .5, .75, 1};
const std::vector<double> kFineRatios{0, .25, .375, .5, .625, .75, .875, 1};

const std::vector<LayerMode> kAllModes{LayerMode::kStore, LayerMode::kInPlace, LayerMode::kRecompute,
                                       LayerMode::kRerunMlp, LayerMode::kRerun};

SearchSpace mist() {
  SearchSpace space;
  space.name = "mist";
  space.zero = {1, 2, 3};
  space.checkpointing = Checkpointing::kTuned;
  space.weights = space.gradients = kCoarseRatios;
  space.optimizer = space.activations = kFineRatios;
  space.layer_window = 2;
  return space;
}

// Ratios are coarser than Mist's, for they are refined afterwards; its own grid is searched too.
SearchSpace full() {
  SearchSpace space = mist();
  space.also = {space};
  space.name = "full";
  space.weights = space.gradients = {0, .5, 1};
  space.activations = {0, .25, .5, .75, 1};
  space.zero = {0, 1, 2, 3};
  space.max_micro_batch = 16;
  space.micro_batch_powers = false;
  space.modes = kAllModes;
  space.sequence_parallel = {false, true};
  space.chunked_loss = {true, false};
  space.mixed_stages = true;
  space.layer_window = -1;
  space.schedules = {Schedule::kZeroBubble, Schedule::kInterleaved, Schedule::kOneFOneB};  // best first
  space.refine_offload = true;
  return space;
}

SearchSpace deepspeed() {
  SearchSpace space;
  space.name = "deepspeed";
  space.zero = {0, 1, 2, 3};
  space.weights = space.optimizer = {0, 1};
  space.gradients = {0, 1};
  space.zero_limits_pipeline = true;
  return space;
}

SearchSpace aceso() {
  SearchSpace space;
  space.name = "aceso";
  space.zero = {0};
  space.checkpointing = Checkpointing::kTuned;
  space.mixed_stages = true;
  space.layer_window = -1;
  return space;
}

template <class Predicate>
bool any_stage(const TrainPlan& plan, Predicate predicate) {
  return std::ranges::any_of(plan.stages, predicate);
}

bool tunes_checkpointing(const TrainPlan& plan) {
  return any_stage(plan, [](const Stage& s) { return s.checkpointed != 0; }) &&
         any_stage(plan, [](const Stage& s) { return s.checkpointed != s.layers; });
}

bool mixes_stages(const TrainPlan& plan) {
  const Stage& first = plan.stages.front();
  return any_stage(plan, [&](const Stage& s) {
    return s.mesh != first.mesh || s.policy.tensor_parallel != first.policy.tensor_parallel;
  });
}

// A knob: its name, whether the space leaves a choice in it, how to fix it, and whether a plan needs it.
struct Knob {
  const char* name;
  std::function<bool(const SearchSpace&)> free;
  std::function<void(SearchSpace&)> fix;
  std::function<bool(const TrainPlan&)> used;
};

template <class Predicate>
std::function<bool(const TrainPlan&)> in_some_policy(Predicate predicate) {
  return [predicate](const TrainPlan& plan) {
    return any_stage(plan, [&](const Stage& stage) { return predicate(stage.policy); });
  };
}

const std::vector<Knob>& knobs() {
  using cost::Policy;
  static const std::vector<Knob> list{
      {"tensor parallelism", [](const auto& s) { return s.tensor_parallel.size() > 1; },
       [](auto& s) { s.tensor_parallel = {1}; }, in_some_policy([](const Policy& p) { return p.tensor_parallel > 1; })},
      {"pipeline parallelism", [](const auto& s) { return s.max_stages > 1; }, [](auto& s) { s.max_stages = 1; },
       [](const TrainPlan& plan) { return plan.stages.size() > 1; }},
      {"ZeRO-2/3", [](const auto& s) { return s.zero.back() > 1; }, [](auto& s) { s.zero = {1}; },
       in_some_policy([](const Policy& p) { return p.zero != 1; })},
      {"checkpoint tuning", [](const auto& s) { return s.checkpointing == Checkpointing::kTuned; },
       [](auto& s) { s.checkpointing = Checkpointing::kAllOrNothing; }, tunes_checkpointing},
      {"optimizer offload", [](const auto& s) { return s.optimizer.size() > 1; }, [](auto& s) { s.optimizer = {0}; },
       in_some_policy([](const Policy& p) { return p.optimizer_offload > 0; })},
      {"activation offload", [](const auto& s) { return s.activations.size() > 1; },
       [](auto& s) { s.activations = {0}; }, in_some_policy([](const Policy& p) { return p.activation_offload > 0; })},
      {"gradient offload", [](const auto& s) { return s.gradients.size() > 1; },
       [](auto& s) {
         s.gradients = {0};
         s.weights = {0};
       },
       in_some_policy([](const Policy& p) { return p.gradient_offload > 0 || p.weight_offload > 0; })},
      {"weight offload", [](const auto& s) { return s.weights.size() > 1; }, [](auto& s) { s.weights = {0}; },
       in_some_policy([](const Policy& p) { return p.weight_offload > 0; })},
      {"memory-saving layers", [](const auto& s) { return s.modes.size() > 1; },
       [](auto& s) { s.modes = {LayerMode::kStore}; },
       in_some_policy([](const Policy& p) { return p.mode != LayerMode::kStore; })},
      {"chunked loss", [](const auto& s) { return s.chunked_loss.size() > 1; },
       [](auto& s) { s.chunked_loss = {false}; }, [](const TrainPlan& plan) { return plan.chunked_loss; }},
      {"sequence parallelism", [](const auto& s) { return s.sequence_parallel.size() > 1; },
       [](auto& s) { s.sequence_parallel = {false}; },
       in_some_policy([](const Policy& p) { return p.sequence_parallel; })},
      {"mixed stages", [](const auto& s) { return s.mixed_stages; }, [](auto& s) { s.mixed_stages = false; },
       mixes_stages},
      // Stages of unequal meshes need unequal layers.
      {"uneven layers", [](const auto& s) { return s.layer_window != 0; },
       [](auto& s) {
         s.layer_window = 0;
         s.mixed_stages = false;
       },
       [](const TrainPlan& plan) {
         const int layers = plan.stages.front().layers;
         return mixes_stages(plan) || any_stage(plan, [&](const Stage& s) { return s.layers != layers; });
       }},
      {"other schedules", [](const auto& s) { return s.schedules.size() > 1; },
       [](auto& s) { s.schedules = {Schedule::kOneFOneB}; },
       [](const TrainPlan& plan) { return plan.schedule != Schedule::kOneFOneB; }},
  };
  return list;
}

const Knob& find_knob(std::string_view name) {
  for (const Knob& knob : knobs()) {
    if (knob.name == name) return knob;
  }
  base::fail_input("'{}' is not a knob of the search", name);
}

}  // namespace

SearchSpace named_space(std::string_view name) {
  if (name == "megatron") {
    SearchSpace space;
    space.name = "megatron";
    return space;
  }
  if (name == "deepspeed") return deepspeed();
  if (name == "aceso") return aceso();
  if (name == "mist") return mist();
  if (name == "full") return full();
  base::fail_input("search space '{}' is not one of megatron, deepspeed, aceso, mist, full", name);
}

std::vector<SearchSpace> ablation_spaces() {
  std::vector<SearchSpace> steps;
  SearchSpace space;
  const auto add = [&](const char* name) {
    space.name = name;
    steps.push_back(space);
  };
  space.checkpointing = Checkpointing::kAll;
  add("parallelism");
  space.zero = {1, 2, 3};
  add("+ ZeRO-2/3");
  space.checkpointing = Checkpointing::kTuned;
  space.layer_window = 2;
  add("+ checkpoint tuning");
  space.optimizer = kFineRatios;
  add("+ optimizer offload");
  space.activations = kFineRatios;
  add("+ activation offload");
  space.gradients = kCoarseRatios;
  add("+ gradient offload");
  space.weights = kCoarseRatios;
  add("+ weight offload");
  space.modes = kAllModes;
  space.chunked_loss = {false, true};
  add("+ memory-saving layers");
  space = full();
  add("full");
  return steps;
}

std::vector<std::string> tunable_knobs(const SearchSpace& space) {
  std::vector<std::string> names;
  for (const Knob& knob : knobs()) {
    if (knob.free(space)) names.emplace_back(knob.name);
  }
  return names;
}

SearchSpace without_knob(SearchSpace space, std::string_view name) {
  find_knob(name).fix(space);
  for (SearchSpace& other : space.also) other = without_knob(std::move(other), name);
  return space;
}

bool uses_knob(const TrainPlan& plan, std::string_view name) { return find_knob(name).used(plan); }

}  // namespace gantry::plan
