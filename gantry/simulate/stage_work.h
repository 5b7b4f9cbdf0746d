#pragma once
// What a stage has to do, cut into tasks, and how long a task takes.
#include <vector>

#include "gantry/base/random.h"
#include "gantry/simulate/pipeline.h"

namespace gantry::simulate {

enum class TaskKind : std::uint8_t { kStart, kForward, kBackward, kWeightGradient, kEnd, kSend };

/// Steps that run one after the other, or (kStart, kEnd, kSend) work of given length on some channels side by side.
struct Task {
  TaskKind kind = TaskKind::kForward;
  std::vector<cost::LayerStep> steps;
  double length_s = 0;
  cost::ChannelTimes share{};  ///< of length_s that each channel is busy; the longest has 1
};

/// A task as it went: times count from its start; stage, micro-batch and chunk of the events are not set.
struct Course {
  double seconds = 0;
  double compute_s = 0;
  std::vector<Event> events;
};

/// The tasks of one stage. `first`: of micro-batch 0; `last`: of the last micro-batch. Index: chunk.
struct StageWork {
  cost::Factors factors;
  std::vector<Task> forward_first;
  std::vector<Task> forward;
  std::vector<Task> backward;
  std::vector<Task> backward_last;
  std::vector<Task> weight_gradient;  ///< zero-bubble only
  std::vector<Task> weight_gradient_last;
  Task start;  ///< no length: nothing to do
  Task end;
  Task send;
};

/// `stage` counts from 0. All seconds are multiplied by `slowness`.
StageWork stage_work(const cost::StagePhases& phases, int stage, plan::Schedule schedule, int chunks, double slowness);

/// Runs a task. `noise`: draws a factor with this standard deviation of its logarithm for every piece of work; null
/// draws none.
struct Noise {
  base::CounterRandom random;
  double deviation = 0;
  double factor();
};
Course run_task(const Task& task, const cost::Factors& factors, Noise* noise, bool record);

}  // namespace gantry::simulate
