#include "gantry/simulate/engine.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "gantry/base/check.h"

namespace gantry::simulate {
namespace {

using plan::Schedule;

constexpr double kUnknown = std::numeric_limits<double>::infinity();

struct Message {
  int target = 0;
  Pass pass;
};

/// The pass that the end of another one makes possible; on the last stage a forward makes its own backward possible.
std::optional<Message> successor(int stage, Pass pass, int last_stage, int chunks) {
  if (!pass.backward) {
    if (stage < last_stage) return Message{stage + 1, pass};
    if (pass.chunk + 1 == chunks) return Message{stage, {true, pass.micro_batch, pass.chunk}};
    return Message{0, {false, pass.micro_batch, pass.chunk + 1}};
  }
  if (stage > 0) return Message{stage - 1, pass};
  if (pass.chunk > 0) return Message{last_stage, {true, pass.micro_batch, pass.chunk - 1}};
  return {};
}

}  // namespace

Engine::Engine(const std::vector<cost::StagePhases>& stages, Schedule schedule, int chunks, int accumulation,
               const SimulationOptions& options)
    : schedule_(schedule), chunks_(chunks), accumulation_(accumulation), options_(options), stages_(stages.size()) {
  const int count = static_cast<int>(stages.size());
  for (int i = 0; i < count; ++i) {
    StageState& state = at(i);
    const double slowness = i == options.straggler_stage ? options.straggler_factor : 1.0;
    const StageWork work = stage_work(stages[static_cast<std::size_t>(i)], i, schedule, chunks, slowness);
    state.factors = work.factors;
    state.forward[0] = planned(work.forward, work.factors);
    state.forward[1] = planned(work.forward_first, work.factors);
    state.backward[0] = planned(work.backward, work.factors);
    state.backward[1] = planned(work.backward_last, work.factors);
    state.weight_gradient[0] = planned(work.weight_gradient, work.factors);
    state.weight_gradient[1] = planned(work.weight_gradient_last, work.factors);
    state.start = planned({work.start}, work.factors).front();
    state.end = planned({work.end}, work.factors).front();
    state.send = planned({work.send}, work.factors).front();
    state.order = pass_order(schedule, count, i, chunks, accumulation);
  }
  const std::size_t inputs = stages.size() * static_cast<std::size_t>(chunks) * static_cast<std::size_t>(accumulation);
  for (auto& arrivals : arrival_) arrivals.assign(inputs, kUnknown);
  for (int m = 0; m < accumulation; ++m) arrival(0, {false, m, 0}) = 0;
}

double& Engine::arrival(int stage, const Pass& pass) {
  const std::int64_t row = std::int64_t{stage} * chunks_ + pass.chunk;
  return arrival_[pass.backward ? 1 : 0][static_cast<std::size_t>(row * accumulation_ + pass.micro_batch)];
}

std::vector<PlannedTask> Engine::planned(const std::vector<Task>& tasks, const cost::Factors& factors) const {
  std::vector<PlannedTask> result;
  for (const Task& task : tasks) {
    result.push_back({task, options_.noise > 0 ? Course{} : run_task(task, factors, nullptr, options_.record)});
  }
  return result;
}

Outcome Engine::run() {
  for (int i = 0; i <= last_stage(); ++i) {
    if (at(i).start.task.length_s > 0) carry_out(i, at(i).start, {false, -1, 0}, 0);
    free_.push({at(i).free_s, i});
  }
  while (!free_.empty()) {
    const int stage = free_.top().second;
    free_.pop();
    if (advance(stage)) free_.push({at(stage).free_s, stage});
  }
  return outcome();
}

bool Engine::advance(int stage) {
  StageState& state = at(stage);
  if (state.next == state.order.size()) return finish(stage);
  const Pass& pass = state.order[state.next];
  const double input_s = arrival(stage, pass);
  if (state.owes() && owed_first(state, pass, input_s)) {
    make_weight_gradients(stage);
    return true;
  }
  state.idle = input_s == kUnknown;
  if (state.idle) return false;
  ++state.next;
  run_pass(stage, pass, std::max(state.free_s, input_s));
  return true;
}

bool Engine::finish(int stage) {
  StageState& state = at(stage);
  if (state.owes()) {
    make_weight_gradients(stage);
    return true;
  }
  if (state.ended || state.end.task.length_s <= 0) return false;
  carry_out(stage, state.end, {true, -1, 0}, state.free_s);
  state.ended = true;
  return true;
}

// Weight gradients run where the stage would wait for at least half their time, and where the forward would hold one
// micro-batch more than the first stage of 1F1B does.
bool Engine::owed_first(const StageState& state, const Pass& pass, double input_s) const {
  if (!pass.backward && state.alive >= static_cast<int>(stages_.size()) * chunks_) return true;
  const Pass& owed = state.owed[state.next_owed];
  return input_s >
         state.free_s + state.weight_gradient[extreme(owed)][static_cast<std::size_t>(owed.chunk)].course.seconds / 2;
}

void Engine::make_weight_gradients(int stage) {
  StageState& state = at(stage);
  const Pass pass = state.owed[state.next_owed++];
  carry_out(stage, state.weight_gradient[extreme(pass)][static_cast<std::size_t>(pass.chunk)], pass, state.free_s);
  --state.alive;
}

void Engine::run_pass(int stage, const Pass& pass, double start_s) {
  StageState& state = at(stage);
  if (!pass.backward) state.most_alive = std::max(state.most_alive, ++state.alive);
  const auto& tasks = pass.backward ? state.backward : state.forward;
  carry_out(stage, tasks[extreme(pass)][static_cast<std::size_t>(pass.chunk)], pass, start_s);
  if (pass.backward && schedule_ == Schedule::kZeroBubble) {
    state.owed.push_back(pass);
  } else if (pass.backward) {
    --state.alive;
  }
  hand_on(stage, pass);
}

void Engine::hand_on(int stage, const Pass& pass) {
  const auto message = successor(stage, pass, last_stage(), chunks_);
  if (!message) return;
  StageState& sender = at(stage);
  const auto& [target, next] = *message;
  if (target != stage && sender.send.task.length_s > 0) carry_out(stage, sender.send, pass, sender.free_s);
  arrival(target, next) = sender.free_s;
  StageState& receiver = at(target);
  if (!receiver.idle || arrival(target, receiver.order[receiver.next]) == kUnknown) return;
  receiver.idle = false;
  free_.push({sender.free_s, target});
}

void Engine::carry_out(int stage, const PlannedTask& planned, const Pass& pass, double start_s) {
  StageState& state = at(stage);
  Course drawn;
  if (options_.noise > 0) {
    // The seed names the piece of work: draws do not depend on the order of execution.
    const std::uint64_t place = static_cast<std::uint64_t>(stage) << 16 |
                                static_cast<std::uint64_t>(planned.task.kind) << 1 |
                                static_cast<std::uint64_t>(pass.backward);
    const std::uint64_t piece =
        static_cast<std::uint64_t>(pass.micro_batch + 1) << 32 | static_cast<std::uint64_t>(pass.chunk);
    const std::uint64_t seed = base::mix64(base::mix64(options_.seed ^ base::mix64(place)) ^ piece);
    Noise noise{base::CounterRandom(seed), options_.noise};
    drawn = run_task(planned.task, state.factors, &noise, options_.record);
  }
  const Course& course = options_.noise > 0 ? drawn : planned.course;
  for (Event event : course.events) {
    event.stage = stage;
    event.micro_batch = pass.micro_batch;
    event.chunk = pass.chunk;
    event.start_s += start_s;
    event.end_s += start_s;
    events_.push_back(event);
  }
  state.free_s = start_s + course.seconds;
  state.busy_s += course.compute_s;
  state.working_s += course.seconds;
}

Outcome Engine::outcome() {
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

}  // namespace gantry::simulate
