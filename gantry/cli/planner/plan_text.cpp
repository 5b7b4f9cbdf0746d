#include "gantry/cli/planner/plan_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "gantry/cost/sections.h"
#include "gantry/spec/tensor_table.h"

namespace gantry::cli::planner {
namespace {

constexpr double kGibibyte = 1024.0 * 1024.0 * 1024.0;

std::string grouped(double value) {
  std::string digits = fmt::format("{:.0f}", value);
  for (int at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<std::size_t>(at), 1, ',');
  return digits;
}

std::string seconds(double s) {
  if (s >= 1) return fmt::format("{:.3f} s", s);
  return fmt::format("{:.2f} ms", s * 1e3);
}

double peak(const plan::Stage& stage) {
  return std::max(stage.predicted->memory_forward_bytes, stage.predicted->memory_backward_bytes);
}

std::string bar(double share, int width) {
  const int full = static_cast<int>(std::lround(std::clamp(share, 0.0, 1.0) * width));
  std::string text;
  for (int i = 0; i < width; ++i) text += i < full ? "█" : "·";
  return text;
}

// What the stage keeps in host memory and how its layers run, in few columns: "W100 O50 in_place seq".
std::string notes(const cost::Policy& policy) {
  std::string text;
  const auto add = [&](std::string_view word) {
    if (!text.empty()) text += ' ';
    text += word;
  };
  const auto offload = [&](const char* name, double ratio) {
    if (ratio > 0) add(fmt::format("{}{:.0f}", name, 100 * ratio));
  };
  offload("W", policy.weight_offload);
  offload("G", policy.gradient_offload);
  offload("O", policy.optimizer_offload);
  offload("A", policy.activation_offload);
  if (policy.mode != cost::LayerMode::kStore) add(cost::layer_mode_name(policy.mode));
  if (policy.sequence_parallel) add("seq");
  return text.empty() ? "-" : text;
}

// What the notes of these stages mean.
std::string legend(const std::vector<plan::Stage>& stages) {
  bool offload = false;
  bool sequence = false;
  for (const plan::Stage& stage : stages) {
    const cost::Policy& policy = stage.policy;
    offload = offload || policy.weight_offload > 0 || policy.gradient_offload > 0 || policy.optimizer_offload > 0 ||
              policy.activation_offload > 0;
    sequence = sequence || policy.sequence_parallel;
  }
  std::string text;
  if (offload) text += "  W, G, O, A: % of weights, gradients, optimizer states, activations kept in host memory\n";
  if (sequence) text += "  seq: sequence parallelism\n";
  return text;
}

std::string schedule_text(const plan::TrainPlan& plan) {
  const std::string name(plan::schedule_name(plan.schedule));
  return plan.schedule == plan::Schedule::kInterleaved ? fmt::format("{} x{}", name, plan.chunks) : name;
}

// "4" where all stages agree, else "1-4".
template <class Get>
std::string range_of(const plan::TrainPlan& plan, Get get) {
  const auto [low, high] = std::ranges::minmax(plan.stages, {}, get);
  return get(low) == get(high) ? fmt::format("{}", get(low)) : fmt::format("{}-{}", get(low), get(high));
}

std::string terms_table(const char* title, std::vector<cost::CostTerm> terms, double scale, const char* unit) {
  double sum = 0;
  for (const cost::CostTerm& term : terms) sum += term.value;
  std::string text = fmt::format("  {}\n", title);
  for (const cost::CostTerm& term : terms) {
    if (std::abs(term.value) < sum * 5e-4) continue;
    text += fmt::format("    {:<50} {:>10.3f} {}  {:>5.1f} %\n", term.name, term.value * scale, unit,
                        100 * term.value / sum);
  }
  return text;
}

}  // namespace

std::string wrapped(const std::string& text) {
  constexpr std::size_t kColumns = 96;
  std::string lines;
  std::size_t start = 0;
  while (start < text.size()) {
    std::size_t end = text.size();
    if (end - start > kColumns) {
      std::size_t blank = text.rfind(' ', start + kColumns);
      if (text.compare(blank, 2, " %") == 0) blank = text.rfind(' ', blank - 1);
      end = blank == std::string::npos || blank <= start ? text.find(' ', start) : blank;
      end = std::min(end, text.size());
    }
    lines += fmt::format("{}{}\n", start == 0 ? "  " : "    ", text.substr(start, end - start));
    start = end + 1;
  }
  return lines;
}

std::string headline(const plan::SearchInput& input) {
  return fmt::format(
      "{} ({:.2f} B parameters), {} sequences of {} tokens an iteration\n"
      "on {}: {} x {} devices of {:.1f} GiB; profile {}, {}",
      input.model_name, static_cast<double>(spec::parameter_count(input.model)) / 1e9, input.global_batch,
      input.sequence, input.cluster.name, input.cluster.nodes, input.cluster.devices_per_node,
      static_cast<double>(input.cluster.device_memory_bytes) / kGibibyte, input.profile.name, input.cost.dtype);
}

std::string search_line(const plan::SearchResult& result, const std::string& space, double seconds, bool simulated) {
  std::string text = fmt::format("searched the {} space in {:.2f} s", space, seconds);
  if (!result.feasible())
    return text + (result.least_bad.empty() ? "\n" : "; nothing fits. What exceeds memory least:\n");
  text += fmt::format("; {} stage policies priced", grouped(static_cast<double>(result.stages_priced)));
  if (simulated) text += fmt::format("; {} ranked by simulation", result.ranked.size());
  text += "\noperator prices:";
  const char* separator = " ";
  for (std::size_t i = 0; i < result.provenance.operators.size(); ++i) {
    const int count = result.provenance.operators[i];
    if (count == 0) continue;
    text += fmt::format("{}{} {}", separator, grouped(count), cost::provenance_name(static_cast<cost::Provenance>(i)));
    separator = ", ";
  }
  if (result.provenance.estimated_links) text += "; some group shapes took the link of the nearest measured one";
  return text + "\n";
}

std::string ranking(const std::vector<plan::TrainPlan>& plans) {
  std::string text = fmt::format("  {:>2} {:>12} {:>10} {:>13} {:>12} {:>7} {:>5} {:>5} {:>5}  {}\n", "#", "iteration",
                                 "tokens/s", "accumulation", "micro-batch", "stages", "dp", "tp", "ZeRO", "schedule");
  for (std::size_t i = 0; i < plans.size(); ++i) {
    const plan::TrainPlan& plan = plans[i];
    text += fmt::format("  {:>2} {:>12} {:>10} {:>13} {:>12} {:>7} {:>5} {:>5} {:>5}  {}\n", i + 1,
                        seconds(plan.predicted->iteration_s), grouped(plan.predicted->tokens_per_s), plan.accumulation,
                        range_of(plan, [](const plan::Stage& s) { return s.policy.micro_batch; }), plan.stages.size(),
                        range_of(plan, [](const plan::Stage& s) { return s.policy.data_parallel; }),
                        range_of(plan, [](const plan::Stage& s) { return s.policy.tensor_parallel; }),
                        range_of(plan, [](const plan::Stage& s) { return s.policy.zero; }), schedule_text(plan));
  }
  return text;
}

std::string stage_table(const plan::TrainPlan& plan, const cost::CostModel& model) {
  std::string text =
      fmt::format("  {:>5} {:>7} {:>5} {:>3} {:>4} {:>3} {:>4} {:>7} {:>11} {:>10}  {:<22}  {}\n", "stage", "layers",
                  "mesh", "b", "dp", "tp", "ZeRO", "ckpt", "micro-batch", "extra", "memory of a device", "notes");
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    const plan::Stage& stage = plan.stages[i];
    const cost::Policy& policy = stage.policy;
    text += fmt::format("  {:>5} {:>7} {:>5} {:>3} {:>4} {:>3} {:>4} {:>7} {:>11} {:>10}  {} {:>5.1f}/{:.1f} GiB  {}\n",
                        i, fmt::format("{}-{}", stage.first_layer, stage.first_layer + stage.layers - 1),
                        fmt::format("{}x{}", stage.mesh.nodes, stage.mesh.per_node), policy.micro_batch,
                        policy.data_parallel, policy.tensor_parallel, policy.zero,
                        fmt::format("{}/{}", stage.checkpointed, stage.layers), seconds(stage.predicted->t_s),
                        seconds(stage.predicted->d_s), bar(peak(stage) / model.device_bytes(), 8),
                        peak(stage) / kGibibyte, model.device_bytes() / kGibibyte, notes(policy));
  }
  return text + legend(plan.stages);
}

std::string explanation(const plan::TrainPlan& plan, const plan::PlanExplanation& why, const cost::CostModel& model) {
  const double closed = why.steady_s + why.fill_s + why.delta_s;
  std::string text = wrapped(why.binding);
  if (plan.stages.size() == 1) {
    text += fmt::format("  {}: micro-batches {} x {} + {} that the first and the last one add\n", seconds(closed),
                        plan.accumulation, seconds(plan.stages[0].predicted->t_s), seconds(why.delta_s));
  } else {
    text += fmt::format("  {}: {} steady state + {} filling and draining + {} first and last\n", seconds(closed),
                        seconds(why.steady_s), seconds(why.fill_s), seconds(why.delta_s));
  }
  if (std::abs(plan.predicted->iteration_s - closed) > 1e-9 * closed) {
    text += fmt::format("  {} simulated, event by event ({:+.2f} %)\n", seconds(plan.predicted->iteration_s),
                        100 * (plan.predicted->iteration_s / closed - 1));
  }
  const auto slowest = static_cast<std::size_t>(why.slowest_stage);
  text += "\n" + terms_table(fmt::format("time of a micro-batch on stage {} (the slowest)", slowest).c_str(),
                             why.stages[slowest].time, 1e3, "ms");
  const auto fullest = static_cast<std::size_t>(std::ranges::max_element(plan.stages, {}, peak) - plan.stages.begin());
  const plan::StageExplanation& stage = why.stages[fullest];
  text += "\n" + terms_table(fmt::format("memory of a device of stage {} (the fullest), {} peak, {:.1f} of {:.1f} GiB",
                                         fullest, stage.forward_peak ? "forward" : "backward",
                                         peak(plan.stages[fullest]) / kGibibyte, model.device_bytes() / kGibibyte)
                                 .c_str(),
                             stage.forward_peak ? stage.memory_forward : stage.memory_backward, 1 / kGibibyte, "GiB");
  return text;
}

std::string operator_table(const plan::TrainPlan& plan, const plan::PlanExplanation& why,
                           const cost::CostModel& model) {
  const cost::Policy& policy = plan.stages[static_cast<std::size_t>(why.slowest_stage)].policy;
  const cost::SectionKey key{policy.micro_batch, policy.tensor_parallel, policy.mode, policy.sequence_parallel};
  std::string text = fmt::format(
      "  operators of stage {}: embedding, one layer, head; micro-batch {}, tp {}\n    {:<28} {:<24} {:>13} {:>13}  "
      "{}\n",
      why.slowest_stage, policy.micro_batch, policy.tensor_parallel, "", "priced as", "forward", "backward", "from");
  for (const cost::OperatorLine& line : model.sections().lines(key)) {
    text += fmt::format("    {:<28} {:<24} {:>10.3f} ms {:>10.3f} ms  {}\n", line.node, line.op, line.forward_s * 1e3,
                        line.backward_s * 1e3, cost::provenance_name(line.provenance));
  }
  return text;
}

plan::TrainPlan by_closed_form(const plan::SearchInput& input, const std::vector<plan::TrainPlan>& plans) {
  plan::TrainPlan best;
  for (plan::TrainPlan plan : plans) {
    plan::evaluate(plan, *plan::cost_model(input, plan));
    if (!best.predicted || plan.predicted->iteration_s < best.predicted->iteration_s) best = std::move(plan);
  }
  return best;
}

std::string knob_table(const std::vector<plan::KnobValue>& values, double best_s) {
  std::string text = fmt::format(
      "  what each knob is worth: the best plan without it, by the closed form; with all {}\n", seconds(best_s));
  std::string idle;
  for (const plan::KnobValue& value : values) {
    if (std::isinf(value.iteration_s)) {
      text += fmt::format("    without {:<24} nothing fits\n", value.knob);
    } else if (value.iteration_s <= best_s * (1 + 1e-9)) {
      if (!idle.empty()) idle += ", ";
      idle += value.knob;
    } else {
      text += fmt::format("    without {:<24} {:>12}  {:.3f}x\n", value.knob, seconds(value.iteration_s),
                          value.iteration_s / best_s);
    }
  }
  return idle.empty() ? text : text + wrapped("  nothing is lost without " + idle);
}

std::string comparison(const plan::TrainPlan& a, const plan::PlanExplanation& why_a, const plan::TrainPlan& b,
                       const plan::PlanExplanation& why_b) {
  const auto row = [](const char* name, double x, double y) {
    return fmt::format("  {:<34} {:>12} {:>12} {:>8.3f}x\n", name, seconds(x), seconds(y), x > 0 ? y / x : 0);
  };
  const auto slowest = [](const plan::TrainPlan& p, const plan::PlanExplanation& why) {
    return p.stages[static_cast<std::size_t>(why.slowest_stage)].predicted->t_s;
  };
  const auto fullest = [](const plan::TrainPlan& p) { return peak(*std::ranges::max_element(p.stages, {}, peak)); };
  std::string text = fmt::format("  {:<34} {:>12} {:>12} {:>9}\n", "", "A", "B", "B / A");
  const auto closed = [](const plan::PlanExplanation& why) { return why.steady_s + why.fill_s + why.delta_s; };
  text += row("iteration", a.predicted->iteration_s, b.predicted->iteration_s);
  text += fmt::format("  {:<34} {:>12} {:>12} {:>8.3f}x\n", "tokens/s", grouped(a.predicted->tokens_per_s),
                      grouped(b.predicted->tokens_per_s), b.predicted->tokens_per_s / a.predicted->tokens_per_s);
  text += row("iteration by the closed form", closed(why_a), closed(why_b));
  text += row("steady state", why_a.steady_s, why_b.steady_s);
  text += row("filling and draining", why_a.fill_s, why_b.fill_s);
  text += row("first and last micro-batch", why_a.delta_s, why_b.delta_s);
  text += row("slowest stage, a micro-batch", slowest(a, why_a), slowest(b, why_b));
  text += fmt::format("  {:<34} {:>8.1f} GiB {:>8.1f} GiB\n", "fullest device", fullest(a) / kGibibyte,
                      fullest(b) / kGibibyte);
  return text + "\n" + wrapped("A: " + why_a.binding) + wrapped("B: " + why_b.binding);
}

}  // namespace gantry::cli::planner
