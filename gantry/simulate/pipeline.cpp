#include "gantry/simulate/pipeline.h"

#include <cmath>

#include "gantry/base/check.h"
#include "gantry/plan/search.h"
#include "gantry/simulate/engine.h"

namespace gantry::simulate {
namespace {

using plan::Schedule;

constexpr std::int64_t kMostPasses = 20'000'000;
constexpr std::int64_t kMostSteps = 5'000'000;  // recorded

void check_steps(const std::vector<cost::LayerStep>& steps, std::size_t stage) {
  for (const cost::LayerStep& step : steps) {
    bool fine = step.serial_s >= 0 && std::isfinite(step.serial_s) && step.recompute_s >= 0;
    for (const double seconds : step.alone_s) fine = fine && seconds >= 0 && std::isfinite(seconds);
    GANTRY_CHECK(fine && step.recompute_s <= step.alone_s[0],
                 "simulate: stage {} has work of negative or infinite seconds (step '{}', layer {})", stage, step.name,
                 step.layer);
  }
}

void check_input(const std::vector<cost::StagePhases>& stages, Schedule schedule, int chunks, int accumulation,
                 const SimulationOptions& options) {
  const auto count = static_cast<std::int64_t>(stages.size());
  GANTRY_CHECK(count >= 1, "simulate: a plan needs at least one stage");
  GANTRY_CHECK(accumulation >= 1, "simulate: accumulation must be at least 1, found {}", accumulation);
  if (schedule == Schedule::kInterleaved) {
    GANTRY_CHECK(chunks >= 1, "simulate: chunks must be at least 1, found {}", chunks);
    GANTRY_CHECK(
        chunks == 1 || accumulation % count == 0,
        "simulate: the interleaved schedule needs an accumulation that is a multiple of the {} stages, found {}", count,
        accumulation);
  } else {
    GANTRY_CHECK(chunks == 1, "simulate: schedule '{}' has one chunk a stage, found {}; only 'interleaved' has more",
                 plan::schedule_name(schedule), chunks);
  }
  GANTRY_CHECK(count <= kMostPasses && std::int64_t{chunks} * accumulation <= kMostPasses / count,
               "simulate: {} stages x {} chunks x {} micro-batches are more than the {} passes that can be simulated",
               count, chunks, accumulation, kMostPasses);
  GANTRY_CHECK(options.noise >= 0 && options.noise <= 3, "simulate: noise must lie in 0 to 3, found {}", options.noise);
  GANTRY_CHECK(options.straggler_stage < count, "simulate: straggler stage {} does not exist; the plan has {} stages",
               options.straggler_stage, count);
  GANTRY_CHECK(options.straggler_factor > 0 && options.straggler_factor <= 1e6,
               "simulate: the straggler's factor must lie in (0, 1e6], found {}", options.straggler_factor);
  std::int64_t steps = 0;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const cost::StagePhases& phases = stages[i];
    for (const auto* list : {&phases.forward_first, &phases.forward, &phases.backward, &phases.backward_last}) {
      check_steps(*list, i);
    }
    for (const double seconds : {phases.p2p_s, phases.weight_gradient_s}) {
      GANTRY_CHECK(seconds >= 0 && std::isfinite(seconds),
                   "simulate: stage {} has transfers or weight gradients of {} s", i, seconds);
    }
    steps += static_cast<std::int64_t>(phases.forward.size() + phases.backward.size());
  }
  GANTRY_CHECK(!options.record || steps * accumulation <= kMostSteps,
               "simulate: {} micro-batches of {} steps are too many to record (at most {} in all); simulate without a "
               "trace or with a smaller accumulation",
               accumulation, steps, kMostSteps);
}

}  // namespace

Outcome run(const std::vector<cost::StagePhases>& stages, plan::Schedule schedule, int chunks, int accumulation,
            const SimulationOptions& options) {
  check_input(stages, schedule, chunks, accumulation, options);
  return Engine(stages, schedule, chunks, accumulation, options).run();
}

Outcome run(const plan::TrainPlan& plan, const cost::CostModel& model, const SimulationOptions& options) {
  std::vector<cost::StagePhases> stages;
  for (int i = 0; i < static_cast<int>(plan.stages.size()); ++i) {
    stages.push_back(model.phases(plan::stage_query(plan, i)));
  }
  return run(stages, plan.schedule, plan.chunks, plan.accumulation, options);
}

double iteration_s(const plan::TrainPlan& plan, const cost::CostModel& model) {
  SimulationOptions options;
  options.record = false;
  return run(plan, model, options).iteration_s;
}

}  // namespace gantry::simulate
