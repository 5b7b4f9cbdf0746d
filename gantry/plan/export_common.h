#pragma once
// What the exporters share: launchers run equal stages, so a plan is first brought to one set of knobs for all stages.
#include <string>
#include <vector>

#include "gantry/plan/export.h"

namespace gantry::plan::internal {

/// Knobs of a launcher, the same for every stage.
struct Uniform {
  int stages = 1;
  int tensor_parallel = 1;
  int data_parallel = 1;
  int micro_batch = 1;
  int accumulation = 1;
  int zero = 0;
  int checkpointed = 0;  ///< per stage
  bool all_checkpointed = false;
  bool sequence_parallel = false;
  double weight_offload = 0;
  double gradient_offload = 0;
  double optimizer_offload = 0;
  double activation_offload = 0;
};

using Notes = std::vector<std::string>;

/// Where stages differ, the value that needs the least memory is taken and a note says so; so it is for ranks in
/// another order than the launchers' (stage by stage, tensor-parallel neighbours adjacent) and for layer modes.
Uniform make_uniform(const TrainPlan& plan, Notes& notes);

/// Layers of each model chunk in the order of the model: of each stage, or of chunk 0 of all stages, chunk 1, ....
std::vector<int> chunk_layers(const TrainPlan& plan);
bool equal_layers(const TrainPlan& plan);
std::string python_float(double value);  ///< shortest text that reads back the same

Export export_megatron(const TrainPlan& plan, const spec::ModelConfig& model);
Export export_torchtitan(const TrainPlan& plan, const spec::ModelConfig& model);
Export export_deepspeed(const TrainPlan& plan);

}  // namespace gantry::plan::internal
