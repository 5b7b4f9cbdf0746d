#pragma once
// The event loop: stages take up work as its inputs arrive.
#include <cstdint>
#include <queue>
#include <utility>
#include <vector>

#include "gantry/simulate/order.h"
#include "gantry/simulate/stage_work.h"

namespace gantry::simulate {

/// A task as planned and as it goes without noise (empty with noise: every run is drawn).
struct PlannedTask {
  Task task;
  Course course;
};

struct StageState {
  cost::Factors factors;
  // Index: first or last micro-batch (of its direction), then chunk.
  std::vector<PlannedTask> forward[2];
  std::vector<PlannedTask> backward[2];
  std::vector<PlannedTask> weight_gradient[2];
  PlannedTask start, end, send;

  std::vector<Pass> order;
  std::size_t next = 0;
  std::vector<Pass> owed;  ///< backwards whose gradients of weights are not made yet, from next_owed on (ZB-H1)
  std::size_t next_owed = 0;
  bool ended = false;
  bool idle = false;  ///< until the input of its next pass is under way
  double free_s = 0;
  double busy_s = 0;
  double working_s = 0;
  int alive = 0;  ///< chunks of micro-batches whose activations are held
  int most_alive = 0;

  bool owes() const { return next_owed < owed.size(); }
};

/// Input as checked by run().
class Engine {
 public:
  Engine(const std::vector<cost::StagePhases>& stages, plan::Schedule schedule, int chunks, int accumulation,
         const SimulationOptions& options);
  Outcome run();

 private:
  using Wake = std::pair<double, int>;  // when, stage

  StageState& at(int stage) { return stages_[static_cast<std::size_t>(stage)]; }
  int last_stage() const { return static_cast<int>(stages_.size()) - 1; }
  /// When the input of a pass is there.
  double& arrival(int stage, const Pass& pass);
  std::vector<PlannedTask> planned(const std::vector<Task>& tasks, const cost::Factors& factors) const;
  /// Whether a pass has the first forward's or the last backward's additions.
  bool extreme(const Pass& pass) const { return pass.micro_batch == (pass.backward ? accumulation_ - 1 : 0); }

  /// Lets a free stage do its next work; false where it has none for now.
  bool advance(int stage);
  bool finish(int stage);
  bool owed_first(const StageState& state, const Pass& pass, double input_s) const;
  void make_weight_gradients(int stage);
  void run_pass(int stage, const Pass& pass, double start_s);
  /// Sends what a pass made to the stage that needs it.
  void hand_on(int stage, const Pass& pass);
  /// Runs a task from `start_s`; the stage is free at its end.
  void carry_out(int stage, const PlannedTask& planned, const Pass& pass, double start_s);
  Outcome outcome();

  plan::Schedule schedule_;
  int chunks_;
  int accumulation_;
  SimulationOptions options_;
  std::vector<StageState> stages_;
  std::vector<double> arrival_[2];  // forward, backward
  std::priority_queue<Wake, std::vector<Wake>, std::greater<>> free_;
  std::vector<Event> events_;
};

}  // namespace gantry::simulate
