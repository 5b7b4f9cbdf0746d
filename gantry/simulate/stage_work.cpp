#include "gantry/simulate/stage_work.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "gantry/cost/interference.h"
#include "gantry/simulate/flow.h"

namespace gantry::simulate {
namespace {

using cost::Channel;
using cost::LayerStep;
using Steps = std::vector<LayerStep>;

double seconds_of(const Steps& steps, const cost::Factors& factors) {
  double sum = 0;
  for (const LayerStep& step : steps) sum += cost::overlap_s(step.alone_s, factors) + step.serial_s;
  return sum;
}

LayerStep scaled(LayerStep step, double factor) {
  for (double& seconds : step.alone_s) seconds *= factor;
  step.serial_s *= factor;
  step.recompute_s *= factor;
  return step;
}

Steps scaled(const Steps& steps, double factor) {
  Steps result;
  for (const LayerStep& step : steps) result.push_back(scaled(step, factor));
  return result;
}

/// Part `part` of `parts` in the order of execution: equal shares of the layers; what comes before the first layer goes
/// to the first part, what comes after the last layer to the last.
Steps cut(const Steps& steps, int part, int parts) {
  if (parts == 1) return steps;
  const auto layers = std::ranges::count_if(steps, [](const LayerStep& step) { return step.layer >= 0; });
  if (layers == 0) return scaled(steps, 1.0 / parts);
  const double low = static_cast<double>(layers) * part / parts;
  const double high = static_cast<double>(layers) * (part + 1) / parts;
  Steps result;
  double position = 0;
  for (const LayerStep& step : steps) {
    if (step.layer < 0) {
      if (position == 0 ? part == 0 : part == parts - 1) result.push_back(step);
      continue;
    }
    const double share = std::min(high, position + 1) - std::max(low, position);
    if (share > 1e-9) result.push_back(share >= 1 ? step : scaled(step, share));
    ++position;
  }
  return result;
}

std::vector<Task> tasks_of(TaskKind kind, const Steps& steps, int chunks) {
  std::vector<Task> tasks;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const int part = kind == TaskKind::kForward ? chunk : chunks - 1 - chunk;
    tasks.push_back({kind, cut(steps, part, chunks), 0, {}});
  }
  return tasks;
}

/// The seconds by which `extreme` exceeds `steady`, spread over the channels in proportion to what each has more.
Task addition(TaskKind kind, const Steps& extreme, const Steps& steady, double length_s) {
  Task task;
  task.kind = kind;
  task.length_s = length_s;
  for (const LayerStep& step : extreme) {
    for (std::size_t c = 0; c < cost::kChannels; ++c) task.share[c] += step.alone_s[c];
  }
  for (const LayerStep& step : steady) {
    for (std::size_t c = 0; c < cost::kChannels; ++c) task.share[c] -= step.alone_s[c];
  }
  const double largest = std::ranges::max(task.share);
  if (largest <= 0) {
    task.share = {1, 0, 0, 0};
    return task;
  }
  for (double& share : task.share) share = share > 1e-9 * largest ? share / largest : 0;
  return task;
}

/// Takes the gradients of weights out of the layers' compute.
Steps take_weight_gradients(Steps& steps, double weight_gradient_s) {
  const auto layers = std::ranges::count_if(steps, [](const LayerStep& step) { return step.layer >= 0; });
  Steps taken;
  for (LayerStep& step : steps) {
    if (step.layer < 0) continue;
    const double seconds =
        std::min(weight_gradient_s / static_cast<double>(layers), step.alone_s[0] - step.recompute_s);
    step.alone_s[0] -= seconds;
    taken.push_back({{seconds, 0, 0, 0}, 0, step.layer, step.name});
  }
  return taken;
}

std::string_view event_name(TaskKind kind, Channel channel) {
  switch (channel) {
    case Channel::kCopyIn: return "copy-in";
    case Channel::kCopyOut: return "copy-out";
    case Channel::kCompute:
      if (kind == TaskKind::kStart) return "optimizer";
      if (kind == TaskKind::kWeightGradient) return "weight-gradient";
      return kind == TaskKind::kForward ? "forward" : "backward";
    case Channel::kCollective:
      if (kind == TaskKind::kSend) return "p2p";
      return kind == TaskKind::kStart || kind == TaskKind::kForward ? "all-gather" : "gather-reduce";
  }
  return {};
}

void add_event(Course& course, std::string_view name, Channel channel, int layer, double start_s, double end_s) {
  if (end_s > start_s) course.events.push_back({0, 0, 0, channel, name, layer, start_s, end_s});
}

void record_step(Course& course, TaskKind kind, const LayerStep& step, const Flow& flow, double serial_end_s) {
  const double start = course.seconds;
  for (int c = 0; c < cost::kChannels; ++c) {
    const auto channel = static_cast<Channel>(c);
    const std::string_view name = step.name == "optimizer" && c == 0 ? "optimizer" : event_name(kind, channel);
    double begin = flow.start_s(c);
    if (c == 0 && step.recompute_s > 0) {
      const double repeated = flow.time_of(c, step.recompute_s);
      add_event(course, "recompute", channel, step.layer, start + begin, start + repeated);
      begin = repeated;
    }
    add_event(course, name, channel, step.layer, start + begin, start + flow.end_s(c));
  }
  add_event(course, "tensor-parallel", Channel::kCollective, step.layer, start + flow.seconds(), serial_end_s);
}

LayerStep noisy(LayerStep step, Noise& noise) {
  for (std::size_t c = 0; c < cost::kChannels; ++c) {
    if (step.alone_s[c] <= 0) continue;
    const double factor = noise.factor();
    step.alone_s[c] *= factor;
    if (c == 0) step.recompute_s *= factor;
  }
  if (step.serial_s > 0) step.serial_s *= noise.factor();
  return step;
}

Course run_side_by_side(const Task& task, Noise* noise, bool record) {
  Course course;
  if (task.length_s <= 0) return course;
  course.seconds = noise ? task.length_s * noise->factor() : task.length_s;
  course.compute_s = course.seconds * task.share[0];
  if (!record) return course;
  for (int c = 0; c < cost::kChannels; ++c) {
    const auto channel = static_cast<Channel>(c);
    add_event(course, event_name(task.kind, channel), channel, -1, 0,
              course.seconds * task.share[static_cast<std::size_t>(c)]);
  }
  return course;
}

}  // namespace

StageWork stage_work(const cost::StagePhases& phases, int stage, plan::Schedule schedule, int chunks, double slowness) {
  StageWork work;
  work.factors = phases.factors;
  const bool splits = schedule == plan::Schedule::kZeroBubble;
  const Steps forward = scaled(phases.forward, slowness);
  Steps forward_first = scaled(phases.forward_first, slowness);
  Steps backward = scaled(phases.backward, slowness);
  Steps backward_last = scaled(phases.backward_last, slowness);

  const double forward_s = seconds_of(forward, work.factors);
  const double backward_s = seconds_of(backward, work.factors);
  const double more_first_s = seconds_of(forward_first, work.factors) - forward_s;
  const double more_last_s = seconds_of(backward_last, work.factors) - backward_s;
  constexpr double kRounding = 1e-12;
  if (stage > 0 && more_first_s > kRounding * forward_s) {
    work.start = addition(TaskKind::kStart, forward_first, forward, more_first_s);
    forward_first = forward;
  }
  if ((stage > 0 || splits) && more_last_s > kRounding * backward_s) {
    work.end = addition(TaskKind::kEnd, backward_last, backward, more_last_s);
    backward_last = backward;
  }
  if (splits) {
    const double taken_s = phases.weight_gradient_s * slowness;
    work.weight_gradient = tasks_of(TaskKind::kWeightGradient, take_weight_gradients(backward, taken_s), chunks);
    work.weight_gradient_last =
        tasks_of(TaskKind::kWeightGradient, take_weight_gradients(backward_last, taken_s), chunks);
  }
  work.forward_first = tasks_of(TaskKind::kForward, forward_first, chunks);
  work.forward = tasks_of(TaskKind::kForward, forward, chunks);
  work.backward = tasks_of(TaskKind::kBackward, backward, chunks);
  work.backward_last = tasks_of(TaskKind::kBackward, backward_last, chunks);
  work.send = {TaskKind::kSend, {}, phases.p2p_s * slowness, {0, 1, 0, 0}};
  return work;
}

double Noise::factor() {
  // Box-Muller; the shift makes the mean 1.
  const double radius = std::sqrt(-2 * std::log1p(-random.uniform()));
  const double normal = radius * std::cos(2 * std::numbers::pi * random.uniform());
  return std::exp(deviation * normal - deviation * deviation / 2);
}

Course run_task(const Task& task, const cost::Factors& factors, Noise* noise, bool record) {
  if (task.kind == TaskKind::kStart || task.kind == TaskKind::kEnd || task.kind == TaskKind::kSend) {
    return run_side_by_side(task, noise, record);
  }
  Course course;
  for (const LayerStep& planned : task.steps) {
    const LayerStep step = noise ? noisy(planned, *noise) : planned;
    const Flow flow(step.alone_s, factors);
    const double end = course.seconds + flow.seconds() + step.serial_s;
    course.compute_s += flow.end_s(0) - flow.start_s(0);
    if (record) record_step(course, task.kind, step, flow, end);
    course.seconds = end;
  }
  return course;
}

}  // namespace gantry::simulate
