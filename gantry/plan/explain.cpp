#include "gantry/plan/explain.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "gantry/base/check.h"
#include "gantry/plan/objective.h"

namespace gantry::plan {
namespace {

constexpr double kGibibyte = 1024.0 * 1024.0 * 1024.0;

double peak_bytes(const Stage& stage) {
  return std::max(stage.predicted->memory_forward_bytes, stage.predicted->memory_backward_bytes);
}

int fullest_stage(const TrainPlan& plan) {
  const auto at = std::ranges::max_element(plan.stages, {}, peak_bytes);
  return static_cast<int>(at - plan.stages.begin());
}

std::string binding_sentence(const TrainPlan& plan, const cost::CostModel& model, const PlanExplanation& why) {
  const int full = fullest_stage(plan);
  const double used = peak_bytes(plan.stages[static_cast<std::size_t>(full)]);
  const double limit = model.device_bytes();
  const auto host = std::ranges::max_element(plan.stages, {}, [](const Stage& s) { return s.predicted->host_bytes; });
  std::string text;
  if (used >= .95 * limit) {
    text = fmt::format("device memory binds: stage {} needs {:.1f} of {:.1f} GiB", full, used / kGibibyte,
                       limit / kGibibyte);
  } else if (host->predicted->host_bytes >= .95 * model.host_bytes_per_device()) {
    text = fmt::format("host memory binds: {:.0f} of {:.0f} GiB a device", host->predicted->host_bytes / kGibibyte,
                       model.host_bytes_per_device() / kGibibyte);
  } else {
    text =
        fmt::format("compute binds: the fullest stage needs {:.1f} of {:.1f} GiB", used / kGibibyte, limit / kGibibyte);
  }
  if (plan.stages.size() == 1) {
    const double extra = why.delta_s / plan.predicted->iteration_s;
    return text + fmt::format(
                      "; {:.0f} % of the iteration is work of every micro-batch, {:.0f} % what the first and "
                      "the last one add",
                      100 * (1 - extra), 100 * extra);
  }
  const double bubble = 1 - why.steady_s / plan.predicted->iteration_s;
  return text + fmt::format(
                    "; {:.0f} % of the iteration is the steady state of stage {}, {:.0f} % filling the pipeline and "
                    "the first and last micro-batch",
                    100 * (1 - bubble), why.slowest_stage, 100 * bubble);
}

}  // namespace

PlanExplanation explain(const TrainPlan& plan, const cost::CostModel& model) {
  PlanExplanation why;
  double share = 1;
  double sum = 0;
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    const cost::StageQuery query = stage_query(plan, static_cast<int>(i));
    const StagePrediction& predicted = *plan.stages[i].predicted;
    StageExplanation stage;
    stage.time = model.explain_time(query);
    std::ranges::stable_sort(stage.time, std::ranges::greater{}, &cost::CostTerm::value);
    stage.memory_forward = model.explain_memory(query, false);
    stage.memory_backward = model.explain_memory(query, true);
    stage.forward_peak = predicted.memory_forward_bytes > predicted.memory_backward_bytes;
    why.stages.push_back(std::move(stage));
    if (predicted.t_s > plan.stages[static_cast<std::size_t>(why.slowest_stage)].predicted->t_s) {
      why.slowest_stage = static_cast<int>(i);
    }
    sum += predicted.t_s;
    share = std::min(share, weight_gradient_share(model, plan.stages[i].policy.tensor_parallel));
  }
  const Objective objective = schedule_objective(plan.schedule, plan.chunks, plan.accumulation, share);
  why.steady_s = objective.steady * plan.stages[static_cast<std::size_t>(why.slowest_stage)].predicted->t_s;
  why.fill_s = objective.fill * sum;
  why.delta_s = closed_form_s(plan, model) - why.steady_s - why.fill_s;
  why.binding = binding_sentence(plan, model, why);
  return why;
}

std::vector<KnobValue> knob_values(const SearchInput& input, const SearchOptions& options, const TrainPlan* best) {
  std::vector<KnobValue> values;
  const std::vector<std::string> knobs = tunable_knobs(options.space);
  for (const std::string& knob : knobs) {
    if (best != nullptr && !uses_knob(*best, knob)) {
      values.push_back({knob, best->predicted->iteration_s});
      continue;
    }
    SearchOptions without = options;
    without.space = without_knob(options.space, knob);
    without.best = 1;
    without.least_bad = false;
    if (options.progress) {
      without.progress = [&, done = static_cast<double>(values.size())](double share) {
        options.progress((done + share) / static_cast<double>(knobs.size()));
      };
    }
    const SearchResult result = search(input, without);
    KnobValue value{knob};
    if (result.feasible()) value.iteration_s = result.ranked.front().predicted->iteration_s;
    values.push_back(value);
  }
  std::ranges::stable_sort(values, std::ranges::greater{}, &KnobValue::iteration_s);
  return values;
}

WhyNot why_not(const SearchInput& input, const SearchOptions& options, const TrainPlan& best,
               std::string_view restrictions) {
  SearchOptions restricted = options;
  restricted.space = restrict_space(options.space, restrictions);
  restricted.best = 1;
  WhyNot why{search(input, restricted), {}};
  if (!why.result.feasible()) {
    why.answer = fmt::format("no plan with {} fits. {}", restrictions,
                             why.result.least_bad.empty()
                                 ? std::string("No stage shape satisfies it on this cluster with this batch.")
                                 : infeasibility(input, why.result.least_bad.front()));
    return why;
  }
  const TrainPlan& other = why.result.ranked.front();
  const double slower = other.predicted->iteration_s / best.predicted->iteration_s;
  const auto other_model = cost_model(input, other);
  const auto best_model = cost_model(input, best);
  const PlanExplanation a = explain(best, *best_model);
  const PlanExplanation b = explain(other, *other_model);
  why.answer = fmt::format(
      "the best plan with {} takes {:.3f} s, {:.2f} times the best plan's {:.3f} s: steady state {:.3f} s against "
      "{:.3f} s, "
      "filling {:.3f} s against {:.3f} s, first and last micro-batch {:.3f} s against {:.3f} s.",
      restrictions, other.predicted->iteration_s, slower, best.predicted->iteration_s, b.steady_s, a.steady_s, b.fill_s,
      a.fill_s, b.delta_s, a.delta_s);
  const auto& terms = b.stages[static_cast<std::size_t>(b.slowest_stage)].time;
  why.answer +=
      fmt::format(" Its slowest stage spends most on {} ({:.3f} s) and {} ({:.3f} s) of {:.3f} s a micro-batch.",
                  terms[0].name, terms[0].value, terms[1].name, terms[1].value,
                  other.stages[static_cast<std::size_t>(b.slowest_stage)].predicted->t_s);
  return why;
}

std::string infeasibility(const SearchInput& input, const TrainPlan& plan) {
  const auto model = cost_model(input, plan);
  const int full = fullest_stage(plan);
  const Stage& stage = plan.stages[static_cast<std::size_t>(full)];
  const double needed = peak_bytes(stage);
  const double there = model->device_bytes();
  const double host_there = model->host_bytes_per_device();
  double host = 0;
  for (const Stage& any : plan.stages) host = std::max(host, any.predicted->host_bytes);
  std::vector<std::string> remedies;
  std::string text = "The least-bad plan";
  if (needed > there) {
    auto terms = model->explain_memory(stage_query(plan, full),
                                       stage.predicted->memory_backward_bytes >= stage.predicted->memory_forward_bytes);
    std::ranges::stable_sort(terms, std::ranges::greater{}, &cost::CostTerm::value);
    text += fmt::format(
        " needs {:.1f} GiB on a device of stage {}, {:.1f} GiB more than the {:.1f} GiB there are. Largest parts: {} "
        "{:.1f} GiB, {} {:.1f} GiB.",
        needed / kGibibyte, full, (needed - there) / kGibibyte, there / kGibibyte, terms[0].name,
        terms[0].value / kGibibyte, terms[1].name, terms[1].value / kGibibyte);
    remedies.push_back(fmt::format("devices of {:.0f} GiB", std::ceil(needed / kGibibyte)));
  }
  if (host > host_there) {
    text += fmt::format("{} needs {:.1f} GiB of host memory a device; there are {:.1f}.",
                        needed > there ? " It also" : "", host / kGibibyte, host_there / kGibibyte);
    remedies.push_back(
        fmt::format("nodes of {:.0f} GiB", std::ceil(host * input.cluster.devices_per_node / kGibibyte)));
  }
  const double devices = std::max(needed / there, host / host_there);
  if (devices <= 100) remedies.push_back(fmt::format("about {:.1f} times as many devices", devices));
  return text +
         fmt::format(" What would make it fit: {}, a shorter sequence, or a smaller model.", fmt::join(remedies, ", "));
}

}  // namespace gantry::plan
