#pragma once
// Discrete-event execution of a training plan: stages, micro-batches, the four channels of each stage's device under
// the interference model.
#include <cstdint>
#include <string>
#include <vector>

#include "gantry/cost/stage.h"
#include "gantry/plan/types.h"

namespace gantry::simulate {

struct Event {
  int stage = 0;
  int micro_batch = 0;
  cost::Channel channel = cost::Channel::kCompute;
  std::string name;  ///< "forward", "backward", "recompute", "all-gather", "p2p", "optimizer"
  int layer = -1;
  double start_s = 0;
  double end_s = 0;
};

struct SimulationOptions {
  bool record = true;        ///< keep the events (a trace)
  double noise = 0;          ///< standard deviation of log-normal factors on every piece of work
  int straggler_stage = -1;  ///< its work takes `straggler_factor` times as long
  double straggler_factor = 1;
  std::uint64_t seed = 1;
};

struct Outcome {
  double iteration_s = 0;
  std::vector<double> busy_s;       ///< compute, by stage
  std::vector<double> bubble_s;     ///< iteration less busy, by stage
  std::vector<int> peak_in_flight;  ///< micro-batches whose activations were alive at once, by stage
  std::vector<Event> events;        ///< by start
};

/// One iteration on phases of each stage (cost::CostModel::phases). 1F1B, interleaved and zero-bubble (ZB-H1) orders.
Outcome run(const std::vector<cost::StagePhases>& stages, plan::Schedule schedule, int chunks, int accumulation,
            const SimulationOptions& options = {});
/// The same from a plan.
Outcome run(const plan::TrainPlan& plan, const cost::CostModel& model, const SimulationOptions& options = {});

/// Chrome/Perfetto trace-event JSON: a process a stage, a thread a channel.
std::string trace_json(const Outcome& outcome);
/// A timeline as SVG: a row a stage, forward and backward of each micro-batch, other channels as thin rows.
std::string timeline_svg(const Outcome& outcome, const std::string& title);

}  // namespace gantry::simulate
