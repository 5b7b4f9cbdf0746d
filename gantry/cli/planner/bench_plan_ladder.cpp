#include "gantry/cli/planner/bench_plan_ladder.h"

#include <fmt/format.h>

#include <cmath>
#include <ctime>
#include <limits>

#include "gantry/base/interrupt.h"
#include "gantry/plan/inter_stage.h"
#include "gantry/plan/objective.h"
#include "gantry/plan/plan_build.h"
#include "gantry/spec/named_models.h"

namespace gantry::cli::planner {
namespace {

double process_cpu_s() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Choices for the numbers that are not published; the model prices each stage once for each.
class PublishedPlan {
 public:
  explicit PublishedPlan(const plan::SearchInput& input)
      : input_(input), model_(input.model, input.sequence, input.profile, input.cluster, input.cost) {
    for (int stage = 0; stage < kStages; ++stage) price_stage(stage);
  }

  plan::TrainPlan run() {
    std::array<std::size_t, kStages> ratios{};  // indices of kActivations: .75 first, 0 last, never rising
    ratios.back() = kActivations.size() - 1;
    choose(ratios, 1);
    return best_;
  }

 private:
  static constexpr int kStages = 8;
  static constexpr std::array<int, kStages> kCheckpointed{1, 1, 1, 1, 1, 0, 0, 0};
  static constexpr std::array<double, 6> kActivations{.75, .625, .5, .375, .25, 0};
  static constexpr std::array<double, 4> kOptimizer{.625, .75, .875, 1};

  void price_stage(int index) {
    for (std::size_t a = 0; a < kActivations.size(); ++a) {
      for (const double optimizer : kOptimizer) {
        for (const int zero : {1, 2, 3}) {
          plan::Stage stage;
          stage.first_layer = 6 * index;
          stage.layers = 6;
          stage.checkpointed = kCheckpointed[static_cast<std::size_t>(index)];
          stage.mesh = {1, 4};
          stage.policy.data_parallel = 4;
          stage.policy.zero = zero;
          stage.policy.optimizer_offload = optimizer;
          stage.policy.activation_offload = kActivations[a];
          add(index, a, stage);
        }
      }
    }
  }

  void add(int index, std::size_t activation, const plan::Stage& stage) {
    plan::TrainPlan whole = skeleton();
    whole.stages.assign(kStages, stage);
    const cost::StageQuery query = plan::stage_query(whole, index);
    const cost::StageCost cost = model_.price(query);
    if (cost.peak_bytes() > model_.device_bytes() || cost.host_bytes > model_.host_bytes_per_device()) return;
    points_[static_cast<std::size_t>(index)][activation].push_back(
        {cost.t_s, cost.d_s, static_cast<int>(choices_.size())});
    choices_.push_back(stage);
  }

  plan::TrainPlan skeleton() const {
    plan::TrainPlan whole = plan::plan_skeleton(input_, model_.options());
    whole.accumulation = 128;
    return whole;
  }

  void choose(std::array<std::size_t, kStages>& ratios, int stage) {
    if (stage == kStages - 1) return solve(ratios);
    for (std::size_t a = ratios[static_cast<std::size_t>(stage) - 1]; a < kActivations.size(); ++a) {
      ratios[static_cast<std::size_t>(stage)] = a;
      choose(ratios, stage + 1);
    }
  }

  void solve(const std::array<std::size_t, kStages>& ratios) {
    plan::StageTables tables(6 * kStages, {4}, kStages);
    for (int i = 0; i < kStages; ++i) {
      const auto role = i == 0 ? plan::Role::kFirst : i == kStages - 1 ? plan::Role::kLast : plan::Role::kMiddle;
      const auto at = static_cast<std::size_t>(i);
      tables.at(role, kStages - 1 - i, 6, 0) = points_[at][ratios[at]];
    }
    plan::InterStageOptions options;
    options.stages = kStages;
    options.incumbent_s = best_s_;
    const auto objective = plan::schedule_objective(plan::Schedule::kOneFOneB, 1, 128, 0);
    for (const auto& found : plan::inter_stage(tables, 4 * kStages, objective, options)) {
      plan::TrainPlan whole = skeleton();
      for (const plan::StageChoice& choice : found.stages) {
        whole.stages.push_back(choices_[static_cast<std::size_t>(choice.point.choice)]);
      }
      plan::evaluate(whole, model_);
      best_s_ = found.iteration_s;
      best_ = std::move(whole);
    }
  }

  const plan::SearchInput& input_;
  cost::CostModel model_;
  std::vector<plan::Stage> choices_;
  std::array<std::array<std::vector<plan::StagePoint>, kActivations.size()>, kStages> points_;
  double best_s_ = std::numeric_limits<double>::infinity();
  plan::TrainPlan best_;
};

}  // namespace

std::string cluster_name(std::string_view kind, int devices) {
  return devices <= 8 ? fmt::format("{}-1x{}", kind, devices) : fmt::format("{}-{}x8", kind, devices / 8);
}

plan::SearchInput bench_input(const std::string& model, const std::string& cluster, int batch, std::int64_t sequence,
                              int layers) {
  plan::SearchInput input;
  input.model_name = model;
  input.model = spec::named_model(model);
  if (layers > 0) input.model.num_layers = layers;
  input.cluster = cost::load_cluster(cluster);
  input.profile = cost::load_profile(input.cluster.profile);
  input.sequence = sequence;
  input.global_batch = batch;
  return input;
}

plan::SearchInput rung_input(std::string_view family, const Rung& rung, std::string_view kind) {
  return bench_input(fmt::format("{}-{}", family, rung.size), cluster_name(kind, rung.devices), rung.batch,
                     kind == "l4" ? 2048 : 4096);
}

TimedSearch timed_search(const plan::SearchInput& input, const plan::SearchSpace& space) {
  plan::SearchOptions options;
  options.space = space;
  options.least_bad = false;
  options.progress = [](double) {
    if (base::interrupted()) throw base::Interrupted("interrupted");
  };
  TimedSearch timed;
  const double start = process_cpu_s();
  timed.result = plan::search(input, options);
  timed.cpu_s = process_cpu_s() - start;
  timed.iteration_s = timed.result.feasible() ? timed.result.ranked.front().predicted->iteration_s
                                              : std::numeric_limits<double>::infinity();
  return timed;
}

LadderCase run_case(const plan::SearchInput& input, bool ablation) {
  LadderCase result;
  result.model = input.model_name;
  result.cluster = input.cluster.name;
  const TimedSearch megatron = timed_search(input, plan::named_space("megatron"));
  result.megatron_s = megatron.iteration_s;
  result.operators = megatron.result.provenance.operators;
  result.mist_s = timed_search(input, plan::named_space("mist")).iteration_s;
  if (!ablation) return result;
  for (const plan::SearchSpace& space : plan::ablation_spaces()) {
    result.steps_s.push_back(timed_search(input, space).iteration_s);
  }
  return result;
}

double geometric_mean(const std::vector<double>& values) {
  double sum = 0;
  int count = 0;
  for (const double value : values) {
    if (!(value > 0) || !std::isfinite(value)) continue;
    sum += std::log(value);
    ++count;
  }
  return count == 0 ? 0 : std::exp(sum / count);
}

plan::TrainPlan published_plan(const plan::SearchInput& input) { return PublishedPlan(input).run(); }

}  // namespace gantry::cli::planner
