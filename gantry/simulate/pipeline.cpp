#include "gantry/simulate/pipeline.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <queue>
#include <utility>

#include "gantry/base/check.h"
#include "gantry/plan/search.h"
#include "gantry/simulate/order.h"
#include "gantry/simulate/stage_work.h"

namespace gantry::simulate {
namespace {

using plan::Schedule;

constexpr double kUnknown = std::numeric_limits<double>::infinity();
constexpr std::int64_t kMostPasses = 20'000'000;
constexpr std::int64_t kMostSteps = 5'000'000;  // recorded

struct Weights {
  int micro_batch = 0;
  int chunk = 0;
};

struct StageState {
  StageWork work;
  std::vector<Pass> order;
  std::size_t next = 0;
  std::vector<Weights> waiting_weights;  // gradients of weights not yet made, from next_weights on
  std::size_t next_weights = 0;
  // Courses without noise.
  std::vector<Course> forward_first, forward, backward, backward_last, weight_gradient, weight_gradient_last;
  Course send;
  bool ended = false;
  bool idle = false;  // nothing to do until its next pass has its input
  double free_s = 0;
  double busy_s = 0;
  double working_s = 0;
  int alive = 0;  // chunks whose activations are held
  int most_alive = 0;

  bool has_weights() const { return next_weights < waiting_weights.size(); }
};

class Engine {
 public:
  Engine(const std::vector<cost::StagePhases>& stages, Schedule schedule, int chunks, int accumulation,
         const SimulationOptions& options)
      : schedule_(schedule), chunks_(chunks), accumulation_(accumulation), options_(options), stages_(stages.size()) {
    const int count = static_cast<int>(stages.size());
    for (int i = 0; i < count; ++i) {
      StageState& state = at(i);
      const double slowness = i == options.straggler_stage ? options.straggler_factor : 1.0;
      state.work = stage_work(stages[static_cast<std::size_t>(i)], i, schedule, chunks, slowness);
      state.order = pass_order(schedule, count, i, chunks, accumulation);
      if (options.noise == 0) make_courses(state);
    }
    const std::size_t inputs =
        stages.size() * static_cast<std::size_t>(chunks) * static_cast<std::size_t>(accumulation);
    for (auto& arrivals : arrival_) arrivals.assign(inputs, kUnknown);
    for (int m = 0; m < accumulation; ++m) arrival(0, {false, m, 0}) = 0;
  }

  Outcome run() {
    for (int i = 0; i < static_cast<int>(stages_.size()); ++i) {
      if (at(i).work.start.length_s > 0) carry_out(i, at(i).work.start, nullptr, {false, -1, 0}, 0);
      free_.push({at(i).free_s, i});
    }
    while (!free_.empty()) {
      const int stage = free_.top().second;
      free_.pop();
      if (advance(stage)) free_.push({at(stage).free_s, stage});
    }
    return outcome();
  }

 private:
  using Wake = std::pair<double, int>;

  StageState& at(int stage) { return stages_[static_cast<std::size_t>(stage)]; }
  int last_stage() const { return static_cast<int>(stages_.size()) - 1; }
  /// When the input of a pass is there.
  double& arrival(int stage, const Pass& pass) {
    const std::int64_t row = std::int64_t{stage} * chunks_ + pass.chunk;
    return arrival_[pass.backward ? 1 : 0][static_cast<std::size_t>(row * accumulation_ + pass.micro_batch)];
  }

  static void make_courses(StageState& state, const std::vector<Task>& tasks, std::vector<Course>& courses,
                           bool record) {
    for (const Task& task : tasks) courses.push_back(run_task(task, state.work.factors, nullptr, record));
  }
  void make_courses(StageState& state) const {
    const bool record = options_.record;
    make_courses(state, state.work.forward_first, state.forward_first, record);
    make_courses(state, state.work.forward, state.forward, record);
    make_courses(state, state.work.backward, state.backward, record);
    make_courses(state, state.work.backward_last, state.backward_last, record);
    make_courses(state, state.work.weight_gradient, state.weight_gradient, record);
    make_courses(state, state.work.weight_gradient_last, state.weight_gradient_last, record);
    state.send = run_task(state.work.send, state.work.factors, nullptr, record);
  }

  /// Runs a task from `start_s`; the stage is free at its end. `ready`: its course where there is no noise.
  void carry_out(int stage, const Task& task, const Course* ready, const Pass& pass, double start_s) {
    StageState& state = at(stage);
    Course drawn;
    if (options_.noise > 0 || ready == nullptr) {
      const auto place = (static_cast<std::uint64_t>(stage) << 8 | static_cast<std::uint64_t>(task.kind)) << 1 |
                         static_cast<std::uint64_t>(pass.backward);
      const auto piece =
          static_cast<std::uint64_t>(pass.micro_batch + 1) << 32 | static_cast<std::uint64_t>(pass.chunk);
      Noise noise{base::CounterRandom(base::mix64(base::mix64(options_.seed ^ base::mix64(place)) ^ piece)),
                  options_.noise};
      drawn = run_task(task, state.work.factors, options_.noise > 0 ? &noise : nullptr, options_.record);
      ready = &drawn;
    }
    for (Event event : ready->events) {
      event.stage = stage;
      event.micro_batch = pass.micro_batch;
      event.chunk = pass.chunk;
      event.start_s += start_s;
      event.end_s += start_s;
      events_.push_back(event);
    }
    state.free_s = start_s + ready->seconds;
    state.busy_s += ready->compute_s;
    state.working_s += ready->seconds;
  }

  /// Lets a free stage do its next work; false where it has none for now.
  bool advance(int stage) {
    StageState& state = at(stage);
    if (state.next == state.order.size()) {
      if (state.has_weights()) {
        make_weight_gradients(stage);
      } else if (!state.ended && state.work.end.length_s > 0) {
        carry_out(stage, state.work.end, nullptr, {true, -1, 0}, state.free_s);
        state.ended = true;
      } else {
        return false;
      }
      return true;
    }
    const Pass& pass = state.order[state.next];
    const double input_s = arrival(stage, pass);
    if (state.has_weights() && weights_first(state, pass, input_s)) {
      make_weight_gradients(stage);
      return true;
    }
    if (input_s == kUnknown) {
      state.idle = true;
      return false;
    }
    ++state.next;
    run_pass(stage, pass, std::max(state.free_s, input_s));
    return true;
  }

  /// ZB-H1: weight gradients run where the stage would wait for at least half their time, and where the forward would
  /// hold one micro-batch more than 1F1B's first stage holds.
  bool weights_first(const StageState& state, const Pass& pass, double input_s) const {
    const int limit = static_cast<int>(stages_.size()) * chunks_;
    if (!pass.backward && state.alive >= limit) return true;
    const Weights& next = state.waiting_weights[state.next_weights];
    const double seconds = options_.noise > 0 ? 0 : state.weight_gradient[static_cast<std::size_t>(next.chunk)].seconds;
    return input_s > state.free_s + seconds / 2;
  }

  void make_weight_gradients(int stage) {
    StageState& state = at(stage);
    const Weights weights = state.waiting_weights[state.next_weights++];
    const auto chunk = static_cast<std::size_t>(weights.chunk);
    const bool last = weights.micro_batch == accumulation_ - 1;
    const Task& task = (last ? state.work.weight_gradient_last : state.work.weight_gradient)[chunk];
    const auto& courses = last ? state.weight_gradient_last : state.weight_gradient;
    carry_out(stage, task, courses.empty() ? nullptr : &courses[chunk], {true, weights.micro_batch, weights.chunk},
              state.free_s);
    --state.alive;
  }

  void run_pass(int stage, const Pass& pass, double start_s) {
    StageState& state = at(stage);
    const auto chunk = static_cast<std::size_t>(pass.chunk);
    const bool edge = pass.micro_batch == (pass.backward ? accumulation_ - 1 : 0);
    const StageWork& work = state.work;
    const auto& tasks =
        pass.backward ? (edge ? work.backward_last : work.backward) : (edge ? work.forward_first : work.forward);
    const auto& courses =
        pass.backward ? (edge ? state.backward_last : state.backward) : (edge ? state.forward_first : state.forward);
    if (!pass.backward) state.most_alive = std::max(state.most_alive, ++state.alive);
    carry_out(stage, tasks[chunk], courses.empty() ? nullptr : &courses[chunk], pass, start_s);
    if (pass.backward && schedule_ == Schedule::kZeroBubble) {
      state.waiting_weights.push_back({pass.micro_batch, pass.chunk});
    } else if (pass.backward) {
      --state.alive;
    }
    hand_on(stage, pass);
  }

  /// Sends what a pass made to the stage that needs it.
  void hand_on(int stage, Pass pass) {
    StageState& state = at(stage);
    int target = stage;
    const Pass sent = pass;
    if (!pass.backward) {
      if (stage < last_stage()) {
        target = stage + 1;
      } else if (pass.chunk + 1 < chunks_) {
        target = 0;
        ++pass.chunk;
      } else {
        pass.backward = true;
      }
    } else if (stage > 0) {
      target = stage - 1;
    } else if (pass.chunk > 0) {
      target = last_stage();
      --pass.chunk;
    } else {
      return;
    }
    if (target != stage && state.work.send.length_s > 0) {
      carry_out(stage, state.work.send, options_.noise > 0 ? nullptr : &state.send, sent, state.free_s);
    }
    arrival(target, pass) = state.free_s;
    StageState& receiver = at(target);
    if (!receiver.idle || target == stage) return;
    const Pass& awaited = receiver.order[receiver.next];
    if (arrival(target, awaited) == kUnknown) return;
    receiver.idle = false;
    free_.push({state.free_s, target});
  }

  Outcome outcome() {
    Outcome result;
    for (const StageState& state : stages_) {
      if (state.next != state.order.size()) base::fail("simulate: the schedule waits for itself");
      result.iteration_s = std::max(result.iteration_s, state.free_s);
    }
    for (const StageState& state : stages_) {
      result.busy_s.push_back(state.busy_s);
      result.bubble_s.push_back(std::max(result.iteration_s - state.working_s, 0.0));
      result.peak_in_flight.push_back(static_cast<double>(state.most_alive) / chunks_);
    }
    result.events = std::move(events_);
    std::ranges::stable_sort(result.events, {}, &Event::start_s);
    return result;
  }

  Schedule schedule_;
  int chunks_;
  int accumulation_;
  const SimulationOptions& options_;
  std::vector<StageState> stages_;
  std::vector<double> arrival_[2];  // forward, backward
  std::priority_queue<Wake, std::vector<Wake>, std::greater<>> free_;
  std::vector<Event> events_;
};

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
