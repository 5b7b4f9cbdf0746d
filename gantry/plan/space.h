#pragma once
// What a search may choose: the whole space, or the part of it that another system can run, so that the gain of each
// knob can be shown.
#include <string>
#include <string_view>
#include <vector>

#include "gantry/cost/policy.h"
#include "gantry/plan/types.h"

namespace gantry::plan {

enum class Checkpointing {
  kNone,          ///< no layer
  kAll,           ///< every layer
  kAllOrNothing,  ///< every layer of every stage, or none
  kTuned,         ///< any number in each stage
};

struct SearchSpace {
  std::string name;
  std::vector<int> tensor_parallel{1, 2, 4, 8};
  int max_micro_batch = 4;
  bool micro_batch_powers = true;  ///< micro-batches and accumulations are powers of two; else any divisor
  std::vector<int> zero{1};
  Checkpointing checkpointing = Checkpointing::kAllOrNothing;
  // Offloaded fractions to try; 0 first.
  std::vector<double> weights{0};
  std::vector<double> gradients{0};
  std::vector<double> optimizer{0};
  std::vector<double> activations{0};
  bool weights_need_gradients = true;  ///< weights are offloaded only where gradients are, too
  bool zero_limits_pipeline = false;   ///< ZeRO 2 and 3 and offloading exclude pipeline stages (DeepSpeed)
  std::vector<cost::LayerMode> modes{cost::LayerMode::kStore};
  std::vector<bool> sequence_parallel{false};
  std::vector<bool> chunked_loss{false};
  bool mixed_stages = false;  ///< meshes and tensor-parallel degrees may differ between stages
  int layer_window = 0;       ///< layers of a stage differ from the mean by at most this; -1: any split
  int max_stages = 64;
  int stages = 0;        ///< exactly this many; 0: any number
  int accumulation = 0;  ///< exactly this many micro-batches; 0: any
  int micro_batch = 0;   ///< exactly this many sequences a replica; 0: any
  std::vector<Schedule> schedules{Schedule::kOneFOneB};
  std::vector<int> chunks{2, 4};  ///< of interleaved schedules
  bool refine_offload = false;    ///< continuous offload ratios after the search
  std::vector<SearchSpace> also;  ///< searched first; their plans compete and cut off worse ones
};

/// "megatron", "deepspeed", "aceso", "mist", "full". InputError lists them.
SearchSpace named_space(std::string_view name);

/// The ablation of the paper (figure 13's order): parallelism with full checkpointing, then one more knob a step,
/// Tempo's modes and the rest of "full" last. Each contains the one before.
std::vector<SearchSpace> ablation_spaces();

/// Names of the knobs that `without_knob` can forbid in a space: those with more than one choice.
std::vector<std::string> tunable_knobs(const SearchSpace& space);
/// The space with one knob fixed to its plainest choice.
SearchSpace without_knob(SearchSpace space, std::string_view knob);
/// False where forbidding the knob leaves the plan in the space.
bool uses_knob(const TrainPlan& plan, std::string_view knob);

}  // namespace gantry::plan
