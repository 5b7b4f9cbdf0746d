#include "gantry/plan/search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <tuple>

#include "gantry/base/check.h"
#include "gantry/base/timer.h"
#include "gantry/plan/candidates.h"
#include "gantry/plan/enumerate.h"
#include "gantry/plan/objective.h"
#include "gantry/plan/plan_build.h"
#include "gantry/plan/stage_pricing.h"
#include "gantry/plan/verify.h"
#include "gantry/spec/tensor_table.h"

namespace gantry::plan {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

class Searcher {
 public:
  Searcher(const SearchInput& input, const SearchOptions& options, SearchResult& result)
      : input_(input), options_(options), result_(result), candidates_(options.best) {}

  void run() {
    for (const SearchSpace& space : options_.space.also) search_space(space);
    search_space(options_.space);
    result_.ranked = std::move(candidates_).ranked();
  }

 private:
  // Narrow searches first: fast, and what they find cuts off most of the wide ones.
  void search_space(const SearchSpace& space) {
    use(space);
    const bool mixed = space_.mixed_stages && input_.cluster.devices() > 1;
    const std::vector<int> accumulations = accumulations_of(input_, space_);
    done_ = 0;
    total_ = accumulations.size() * space_.chunked_loss.size() * (mixed ? 3 : 2);
    std::vector<std::unique_ptr<cost::CostModel>> models;
    for (const bool chunked : space_.chunked_loss) {
      cost::CostOptions cost = input_.cost;
      cost.chunked_loss = cost.chunked_loss || chunked;
      models.push_back(
          std::make_unique<cost::CostModel>(input_.model, input_.sequence, input_.profile, input_.cluster, cost));
    }
    const auto equal_stages = [&] {
      for (const auto& model : models) {
        search_accumulations(*model, accumulations, [&](int accumulation) { search_equal(*model, accumulation); });
      }
    };
    space_.weights = space_.gradients = {0};
    equal_stages();
    use(space);
    equal_stages();
    for (const auto& model : models) {
      if (mixed) {
        search_accumulations(*model, accumulations, [&](int accumulation) { search_mixed(*model, accumulation); });
      }
      const cost::ProvenanceCount count = model->provenance();
      for (std::size_t i = 0; i < count.operators.size(); ++i) result_.provenance.operators[i] += count.operators[i];
      result_.provenance.estimated_links |= count.estimated_links;
    }
  }

  void use(const SearchSpace& space) {
    space_ = pipeline_space_ = space;
    if (space.zero_limits_pipeline) {
      std::erase_if(pipeline_space_.zero, [](int zero) { return zero > 1; });
      pipeline_space_.weights = pipeline_space_.gradients = {0};
      pipeline_space_.optimizer = pipeline_space_.activations = {0};
    }
  }

  // Promising accumulations first, so that later ones are cut off by what was found.
  void search_accumulations(const cost::CostModel& model, const std::vector<int>& accumulations,
                            const std::function<void(int)>& search) {
    std::vector<std::pair<double, int>> bounds;
    for (const int accumulation : accumulations)
      bounds.emplace_back(lower_bound_s(input_, space_, model, accumulation), accumulation);
    std::ranges::sort(bounds);
    for (const auto& [bound, accumulation] : bounds) {
      families_.clear();
      if (bound < candidates_.bound_s()) search(accumulation);
      if (options_.progress) options_.progress(static_cast<double>(++done_) / static_cast<double>(total_));
    }
  }

  void search_equal(const cost::CostModel& model, int accumulation) {
    const int layers = static_cast<int>(input_.model.num_layers);
    const int devices = input_.cluster.devices();
    for (int stages = 1; stages <= std::min({devices, layers, space_.max_stages}); ++stages) {
      if (space_.stages > 0 && stages != space_.stages) continue;
      if (devices % stages == 0) search_uniform(model, accumulation, stages);
    }
  }

  // Equal meshes and one tensor-parallel degree.
  void search_uniform(const cost::CostModel& model, int accumulation, int stages) {
    const int devices = input_.cluster.devices() / stages;
    const cost::Cluster& cluster = input_.cluster;
    cost::Mesh mesh{1, devices};
    if (devices > cluster.devices_per_node) mesh = {devices / cluster.devices_per_node, cluster.devices_per_node};
    // A stage lies within one node or takes whole nodes.
    if (mesh.devices() != devices || cluster.devices_per_node % mesh.per_node != 0) return;
    const int layers = static_cast<int>(input_.model.num_layers);
    for (const int tp : space_.tensor_parallel) {
      const auto shapes = shapes_of(input_, space_, model, mesh, tp, accumulation);
      if (shapes.empty() || hopeless(model, shapes, accumulation, stages)) continue;
      for (const auto& [schedule, chunks] : schedules_of(input_, space_, stages, accumulation)) {
        StageProblem problem = problem_for(accumulation, stages, schedule, chunks);
        if (space_.layer_window >= 0) {
          const double mean = static_cast<double>(layers) / stages;
          problem.least_layers = std::max(1, static_cast<int>(std::floor(mean)) - space_.layer_window);
          problem.most_layers = static_cast<int>(std::ceil(mean)) + space_.layer_window;
        }
        solve(model, {mesh}, {shapes}, problem);
      }
    }
  }

  // The stage with the most layers has the mean at least, and every micro-batch passes through it.
  bool hopeless(const cost::CostModel& model, const std::vector<cost::Policy>& shapes, int accumulation,
                int stages) const {
    double least = kNever;
    for (const cost::Policy& policy : shapes) least = std::min(least, layer_seconds(model, policy));
    return least * std::ceil(static_cast<double>(input_.model.num_layers) / stages) * accumulation >=
           candidates_.bound_s();
  }

  // Each stage has its own mesh and tensor-parallel degree; any number of stages.
  void search_mixed(const cost::CostModel& model, int accumulation) {
    std::vector<cost::Mesh> meshes;
    std::vector<std::vector<cost::Policy>> shapes;
    for (const cost::Mesh& mesh : meshes_of(input_.cluster)) {
      std::vector<cost::Policy> of_mesh;
      for (const int tp : space_.tensor_parallel) {
        std::ranges::copy(shapes_of(input_, space_, model, mesh, tp, accumulation), std::back_inserter(of_mesh));
      }
      if (of_mesh.empty()) continue;
      meshes.push_back(mesh);
      shapes.push_back(std::move(of_mesh));
    }
    if (meshes.empty()) return;
    solve(model, meshes, shapes, problem_for(accumulation, space_.stages, Schedule::kOneFOneB, 1), true);
  }

  StageProblem problem_for(int accumulation, int stages, Schedule schedule, int chunks) const {
    StageProblem problem;
    problem.devices = input_.cluster.devices();
    problem.accumulation = accumulation;
    problem.stages = stages;
    problem.schedule = schedule;
    problem.chunks = chunks;
    problem.most_layers = static_cast<int>(input_.model.num_layers);
    problem.warmup = [=](int after) { return warmup_micro_batches(schedule, chunks, stages, after, accumulation); };
    return problem;
  }

  // Policies of a stage shape, priced once for each accumulation.
  StageFamily& family(const cost::CostModel& model, const cost::Mesh& mesh, const cost::Policy& shape, int accumulation,
                      bool pipeline) {
    const bool limited = pipeline && space_.zero_limits_pipeline;
    const FamilyKey key{
        mesh.nodes, mesh.per_node, shape.tensor_parallel, static_cast<int>(shape.mode), shape.sequence_parallel,
        limited};
    auto& entry = families_[key];
    if (!entry) {
      const base::ScopedSeconds timer(seconds_of("price_policies"));
      entry = std::make_unique<StageFamily>(model, limited ? pipeline_space_ : space_, mesh, shape, accumulation);
    }
    return *entry;
  }

  void solve(const cost::CostModel& model, const std::vector<cost::Mesh>& meshes,
             const std::vector<std::vector<cost::Policy>>& shapes, StageProblem problem, bool mixed = false) {
    Families families;
    families.mixed = mixed;
    std::vector<int> mesh_devices;
    for (std::size_t m = 0; m < meshes.size(); ++m) {
      mesh_devices.push_back(meshes[m].devices());
      for (const cost::Policy& shape : shapes[m]) {
        families.list.push_back(
            {&family(model, meshes[m], shape, problem.accumulation, problem.stages != 1), static_cast<int>(m)});
        families.shares.push_back(weight_gradient_share(model, shape.tensor_parallel));
      }
    }
    // All or nothing means the same for every stage: one search each.
    const bool separate = space_.checkpointing == Checkpointing::kAllOrNothing;
    const bool tuned = space_.checkpointing == Checkpointing::kTuned;
    for (const bool all :
         separate ? std::vector<bool>{false, true} : std::vector<bool>{space_.checkpointing != Checkpointing::kNone}) {
      problem.checkpoint_all = all;
      problem.checkpoint_none = tuned || !all;
      problem.checkpoint_some = tuned;
      solve_split(model, families, mesh_devices, problem);
    }
  }

  struct Families {
    std::vector<MeshFamily> list;
    std::vector<double> shares;  // of the gradients of weights
    bool mixed = false;          // stages may differ
  };

  // A zero-bubble pipeline fills by the least share among its stages: one search for each value that this can take,
  // over the families with that share or more.
  void solve_split(const cost::CostModel& model, const Families& families, const std::vector<int>& mesh_devices,
                   StageProblem problem) {
    std::vector<double> levels = families.shares;
    std::ranges::sort(levels);
    constexpr double kStep = 1e-12;
    std::vector<double> kept;
    for (const double level : levels) {
      if (kept.empty() || level >= kept.back() + kStep) kept.push_back(level);
    }
    problem.bound_s = candidates_.bound_s();
    PricedStages priced = price(families.list, mesh_devices, problem);
    if (allowed(space_, problem.schedule)) solve_level(model, priced, families.list, problem, kept.front());
    if (problem.schedule == Schedule::kOneFOneB && families.mixed) {
      zero_bubble(model, families, mesh_devices, problem, priced);
    }
    if (problem.schedule != Schedule::kZeroBubble) return;
    for (std::size_t i = 1; i < kept.size(); ++i) {
      const auto fill = [&](double share) {
        return schedule_objective(Schedule::kZeroBubble, 1, problem.accumulation, share).fill;
      };
      // No plan of this level or a higher one takes less.
      const Objective least{problem.accumulation - fill(kept[i]), fill(levels.back())};
      problem.bound_s = candidates_.best_s();
      if (split(priced, problem, least).empty()) return;
      std::vector<MeshFamily> some;
      for (std::size_t f = 0; f < families.list.size(); ++f) {
        if (families.shares[f] >= kept[i]) some.push_back(families.list[f]);
      }
      priced = price(some, mesh_devices, problem);
      solve_level(model, priced, some, problem, kept[i]);
    }
  }

  // How long each stage holds micro-batches depends on the number of stages here. With 1F1B's memory, which is less,
  // most numbers are out of the question already.
  void zero_bubble(const cost::CostModel& model, const Families& families, const std::vector<int>& mesh_devices,
                   const StageProblem& relaxed, const PricedStages& priced) {
    if (!allowed(space_, Schedule::kZeroBubble)) return;
    const auto [low, high] = std::ranges::minmax(families.shares);
    const auto fill = [&](double share) {
      return schedule_objective(Schedule::kZeroBubble, 1, relaxed.accumulation, share).fill;
    };
    // No plan of any share takes less.
    const Objective least{relaxed.accumulation - fill(low), fill(high)};
    const int layers = static_cast<int>(input_.model.num_layers);
    for (int stages = 2; stages <= std::min({relaxed.devices, layers, space_.max_stages}); ++stages) {
      if (space_.stages > 0 && stages != space_.stages) continue;
      StageProblem problem = relaxed;
      problem.stages = stages;
      if (split(priced, problem, least).empty()) continue;
      const StageProblem exact = problem_for(relaxed.accumulation, stages, Schedule::kZeroBubble, 1);
      problem.schedule = exact.schedule;
      problem.warmup = exact.warmup;
      solve_split(model, families, mesh_devices, problem);
    }
  }

  PricedStages price(const std::vector<MeshFamily>& families, const std::vector<int>& mesh_devices,
                     const StageProblem& problem) {
    const base::ScopedSeconds timer(seconds_of("price_stages"));
    const int layers = static_cast<int>(input_.model.num_layers);
    const int most = problem.stages > 0 ? problem.stages : std::min({space_.max_stages, layers, problem.devices});
    PricedStages priced = price_stages(families, mesh_devices, layers, most, problem);
    result_.stages_priced += priced.priced;
    return priced;
  }

  std::vector<InterStageResult> split(const PricedStages& priced, const StageProblem& problem,
                                      const Objective& objective) {
    InterStageOptions options;
    options.stages = problem.stages;
    options.incumbent_s = std::min(candidates_.bound_s(), problem.bound_s);
    const base::ScopedSeconds timer(seconds_of("inter_stage"));
    return inter_stage(priced.tables, problem.devices, objective, options);
  }

  void solve_level(const cost::CostModel& model, const PricedStages& priced, const std::vector<MeshFamily>& families,
                   const StageProblem& problem, double share) {
    const Objective objective = schedule_objective(problem.schedule, problem.chunks, problem.accumulation, share);
    for (const InterStageResult& result : split(priced, problem, objective)) {
      add_candidate(model, problem, result.stages, priced.choices, families);
    }
  }

  void add_candidate(const cost::CostModel& model, const StageProblem& problem, const std::vector<StageChoice>& stages,
                     const std::vector<PolicyChoice>& choices, const std::vector<MeshFamily>& families) {
    TrainPlan plan = plan_skeleton(input_, model.options());
    plan.accumulation = problem.accumulation;
    plan.schedule = problem.schedule;
    plan.chunks = problem.chunks;
    append_stages(plan, stages, choices, families);
    evaluate(plan, model);
    if (space_.refine_offload) {
      const base::ScopedSeconds timer(seconds_of("refine_offload"));
      refine_offload(plan, model);
    }
    candidates_.add(std::move(plan));
  }

  double& seconds_of(std::string_view pass) {
    for (PassTime& time : result_.passes) {
      if (time.name == pass) return time.seconds;
    }
    return result_.passes.emplace_back(std::string(pass), 0.0).seconds;
  }

  const SearchInput& input_;
  const SearchOptions& options_;
  SearchSpace space_;
  SearchSpace pipeline_space_;
  SearchResult& result_;
  Candidates candidates_;
  using FamilyKey = std::tuple<int, int, int, int, bool, bool>;
  std::map<FamilyKey, std::unique_ptr<StageFamily>> families_;  // of the accumulation at hand
  std::size_t done_ = 0;
  std::size_t total_ = 1;
};

void check_input(const SearchInput& input) {
  GANTRY_CHECK(input.global_batch >= 1, "batch {} must be at least 1 sequence", input.global_batch);
  GANTRY_CHECK(input.global_batch <= 1'000'000, "batch {} is above 1,000,000 sequences", input.global_batch);
  GANTRY_CHECK(input.sequence >= 1 && input.sequence <= 10'000'000, "sequence length {} is not within 1 to 10,000,000",
               input.sequence);
}

// Weights, gradients and optimizer states lie somewhere: all devices and hosts together must hold them once.
bool states_fit(const SearchInput& input) {
  const cost::Cluster& cluster = input.cluster;
  if (cluster.host_memory_bytes == 0) return true;
  const double states = static_cast<double>(spec::parameter_count(input.model)) * 16;
  const double there = static_cast<double>(cluster.nodes) *
                       (static_cast<double>(cluster.host_memory_bytes) +
                        static_cast<double>(cluster.device_memory_bytes) * cluster.devices_per_node);
  return states <= there;
}

// The plan that needs the least memory beyond the devices': searched with ever more memory a device.
std::vector<TrainPlan> least_bad(const SearchInput& input, const SearchOptions& options) {
  SearchInput larger = input;
  SearchOptions quick = options;
  quick.best = 1;
  quick.progress = {};
  quick.space.refine_offload = false;
  quick.space.mixed_stages = false;
  quick.space.also.clear();
  for (auto* ratios :
       {&quick.space.weights, &quick.space.gradients, &quick.space.optimizer, &quick.space.activations}) {
    *ratios = {0, ratios->back()};
  }
  const double bytes = static_cast<double>(input.cluster.device_memory_bytes);
  const auto attempt = [&](double factor) {
    larger.cluster.device_memory_bytes = static_cast<std::uint64_t>(bytes * factor);
    larger.cluster.host_memory_bytes = 0;
    SearchResult result;
    Searcher(larger, quick, result).run();
    return std::move(result.ranked);
  };
  double enough = 1;
  std::vector<TrainPlan> best;
  while (best.empty() && enough < 1e6) best = attempt(enough *= 2);
  double low = enough / 2;
  for (int step = 0; step < 6 && !best.empty(); ++step) {
    const double middle = (low + enough) / 2;
    std::vector<TrainPlan> found = attempt(middle);
    if (found.empty()) {
      low = middle;
    } else {
      enough = middle;
      best = std::move(found);
    }
  }
  return best;
}

}  // namespace

SearchResult search(const SearchInput& input, const SearchOptions& options, const Arbiter& arbiter) {
  check_input(input);
  SearchResult result;
  if (states_fit(input)) Searcher(input, options, result).run();
  if (!result.feasible()) {
    if (options.least_bad) result.least_bad = least_bad(input, options);
    return result;
  }
  if (arbiter) {
    const base::Timer timer;
    std::vector<std::pair<double, TrainPlan>> judged;
    for (TrainPlan& plan : result.ranked) {
      const auto model = cost_model(input, plan);
      const double seconds = arbiter(plan, *model);
      judged.emplace_back(seconds, std::move(plan));
    }
    std::ranges::stable_sort(judged, {}, &std::pair<double, TrainPlan>::first);
    result.ranked.clear();
    for (auto& [seconds, plan] : judged) {
      plan.predicted = PlanPrediction{seconds, static_cast<double>(plan.global_batch * plan.sequence) / seconds};
      result.ranked.push_back(std::move(plan));
    }
    result.passes.push_back({"arbitrate", timer.seconds()});
  }
  for (TrainPlan& plan : result.ranked) {
    assign_ranks(plan, input.cluster);
    require_sound(plan, input.model, input.cluster);
  }
  return result;
}

}  // namespace gantry::plan
