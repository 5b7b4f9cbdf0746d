#include "gantry/plan/verify.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "gantry/base/check.h"
#include "gantry/spec/sharding.h"

namespace gantry::plan {
namespace {

class Verifier {
 public:
  Verifier(const TrainPlan& plan, const spec::ModelConfig& model, const cost::Cluster& cluster)
      : plan_(plan), model_(model), cluster_(cluster) {}

  std::vector<Issue> run() {
    check_globals();
    if (plan_.stages.empty()) {
      add("stages", "expected at least one stage, found none; give one with all {} layers", model_.num_layers);
      return std::move(issues_);
    }
    for (std::size_t i = 0; i < plan_.stages.size(); ++i) check_stage(i);
    check_cover();
    check_ranks();
    check_schedule();
    return std::move(issues_);
  }

 private:
  template <class... Args>
  void add(std::string field, fmt::format_string<Args...> format, Args&&... args) {
    issues_.push_back({std::move(field), fmt::format(format, std::forward<Args>(args)...)});
  }

  static std::string at(std::size_t stage, std::string_view field) {
    return fmt::format("stages[{}].{}", stage, field);
  }

  void check_globals() {
    if (plan_.schema != kPlanSchema) {
      add("schema", "expected {}, found {}; plan again with this version", kPlanSchema, plan_.schema);
    }
    constexpr std::array kDtypes = {"fp16", "bf16", "fp32"};
    if (std::find(kDtypes.begin(), kDtypes.end(), plan_.dtype) == kDtypes.end()) {
      add("dtype", "expected one of {}, found '{}'", fmt::join(kDtypes, ", "), plan_.dtype);
    }
    if (plan_.sequence < 1) add("sequence_tokens", "expected at least 1, found {}", plan_.sequence);
    if (plan_.global_batch < 1) add("global_batch", "expected at least 1, found {}", plan_.global_batch);
    if (plan_.accumulation < 1) add("accumulation", "expected at least 1, found {}", plan_.accumulation);
  }

  void check_stage(std::size_t i) {
    const Stage& stage = plan_.stages[i];
    if (stage.layers < 1) add(at(i, "layers"), "expected at least one layer, found {}", stage.layers);
    if (stage.checkpointed < 0 || stage.checkpointed > stage.layers) {
      add(at(i, "checkpointed"), "expected 0 to the {} layers of the stage, found {}", stage.layers,
          stage.checkpointed);
    }
    if (stage.policy.zero < 0 || stage.policy.zero > 3) {
      add(at(i, "zero"), "expected 0, 1, 2 or 3, found {}", stage.policy.zero);
    }
    if (stage.policy.mode == cost::LayerMode::kRerun && !plan_.flash_attention) {
      add(at(i, "layer_mode"), "rerun runs flash attention again, and flash_attention is off; choose rerun_mlp");
    }
    check_ratio(i, "weights", stage.policy.weight_offload);
    check_ratio(i, "gradients", stage.policy.gradient_offload);
    check_ratio(i, "optimizer", stage.policy.optimizer_offload);
    check_ratio(i, "activations", stage.policy.activation_offload);
    check_mesh(i);
    check_parallel(i);
  }

  void check_ratio(std::size_t i, std::string_view name, double ratio) {
    if (!(ratio >= 0 && ratio <= 1)) add(at(i, "offload.") + std::string(name), "expected 0 to 1, found {}", ratio);
  }

  void check_mesh(std::size_t i) {
    const cost::Mesh& mesh = plan_.stages[i].mesh;
    if (mesh.nodes < 1 || mesh.nodes > cluster_.nodes) {
      add(at(i, "mesh.nodes"), "expected 1 to the {} nodes of {}, found {}", cluster_.nodes, cluster_.name, mesh.nodes);
    }
    if (mesh.per_node < 1 || mesh.per_node > cluster_.devices_per_node) {
      add(at(i, "mesh.per_node"), "expected 1 to the {} devices of a node of {}, found {}", cluster_.devices_per_node,
          cluster_.name, mesh.per_node);
    }
  }

  void check_parallel(std::size_t i) {
    const cost::Policy& policy = plan_.stages[i].policy;
    const std::pair<std::string_view, int> counts[] = {{"micro_batch", policy.micro_batch},
                                                       {"data_parallel", policy.data_parallel},
                                                       {"tensor_parallel", policy.tensor_parallel}};
    bool positive = true;
    for (const auto& [name, value] : counts) {
      if (value >= 1) continue;
      add(at(i, name), "expected at least 1, found {}", value);
      positive = false;
    }
    if (!positive) return;
    check_devices(i);
    check_batch(i);
    const int tp = policy.tensor_parallel;
    if (const auto refusal = spec::tensor_parallel_refusal(model_, tp)) {
      add(at(i, "tensor_parallel"), "{}; choose a divisor", *refusal);
    }
    if (policy.sequence_parallel && plan_.sequence % tp != 0) {
      add(at(i, "sequence_parallel"), "{} tokens do not divide over {} tensor-parallel ranks; switch it off",
          plan_.sequence, tp);
    }
  }

  void check_devices(std::size_t i) {
    const Stage& stage = plan_.stages[i];
    const auto devices = std::int64_t{stage.mesh.nodes} * stage.mesh.per_node;
    const auto product = std::int64_t{stage.policy.data_parallel} * stage.policy.tensor_parallel;
    if (product != devices) {
      add(at(i, "data_parallel"),
          "data_parallel {} x tensor_parallel {} = {} differs from the mesh's {} x {} = {} devices; change one of them",
          stage.policy.data_parallel, stage.policy.tensor_parallel, product, stage.mesh.nodes, stage.mesh.per_node,
          devices);
    }
    if (stage.mesh.per_node >= 1 && stage.mesh.per_node % stage.policy.tensor_parallel != 0) {
      add(at(i, "tensor_parallel"),
          "groups of {} do not fit evenly into the {} devices that the mesh has on a node; choose a divisor",
          stage.policy.tensor_parallel, stage.mesh.per_node);
    }
  }

  void check_batch(std::size_t i) {
    const cost::Policy& policy = plan_.stages[i].policy;
    const __int128 product = static_cast<__int128>(policy.micro_batch) * policy.data_parallel * plan_.accumulation;
    if (plan_.accumulation < 1 || product == plan_.global_batch) return;
    // Three 32-bit factors need up to 93 bits.
    const std::string text = product <= std::numeric_limits<std::int64_t>::max()
                                 ? std::to_string(static_cast<std::int64_t>(product))
                                 : "more than 2^63";
    add(at(i, "micro_batch"),
        "micro_batch {} x data_parallel {} x accumulation {} = {} differs from global_batch {}; change one of them",
        policy.micro_batch, policy.data_parallel, plan_.accumulation, text, plan_.global_batch);
  }

  void check_cover() {
    std::int64_t next = 0;
    std::int64_t devices = 0;
    for (std::size_t i = 0; i < plan_.stages.size(); ++i) {
      const Stage& stage = plan_.stages[i];
      if (stage.first_layer != next) {
        add(at(i, "layers"), "expected to start at layer {}, where the stage before ends, found {}", next,
            stage.first_layer);
      }
      next = std::int64_t{stage.first_layer} + stage.layers;
      devices += std::int64_t{stage.mesh.nodes} * stage.mesh.per_node;
    }
    if (next != model_.num_layers) {
      add(at(plan_.stages.size() - 1, "layers"), "expected to end at the model's {} layers, found {}",
          model_.num_layers, next);
    }
    if (devices != cluster_devices()) {
      add("stages", "expected meshes of all {} devices of {}, found {}; change meshes or cluster", cluster_devices(),
          cluster_.name, devices);
    }
  }

  void check_ranks() {
    std::set<int> seen;
    std::size_t with_ranks = 0;
    for (std::size_t i = 0; i < plan_.stages.size(); ++i) {
      if (plan_.stages[i].ranks.empty()) continue;
      ++with_ranks;
      check_ranks_of(i, seen);
    }
    if (with_ranks != 0 && with_ranks != plan_.stages.size()) {
      add("stages", "{} of {} stages have ranks; give them to all stages or to none", with_ranks, plan_.stages.size());
    } else if (with_ranks == 0 && issues_.empty()) {
      check_room();
    }
  }

  void check_ranks_of(std::size_t i, std::set<int>& seen) {
    const Stage& stage = plan_.stages[i];
    const auto devices = std::int64_t{stage.mesh.nodes} * stage.mesh.per_node;
    if (static_cast<std::int64_t>(stage.ranks.size()) != devices) {
      add(at(i, "mesh.ranks"), "expected {} ranks, one a device of the mesh, found {}", devices, stage.ranks.size());
      return;
    }
    for (const int rank : stage.ranks) {
      if (rank < 0 || rank >= cluster_devices()) {
        add(at(i, "mesh.ranks"), "expected ranks 0 to {} of {}, found {}", cluster_devices() - 1, cluster_.name, rank);
        return;
      }
      if (!seen.insert(rank).second) {
        add(at(i, "mesh.ranks"), "rank {} is given twice; each device serves one stage", rank);
        return;
      }
    }
    check_nodes_of(i);
  }

  void check_nodes_of(std::size_t i) {
    const Stage& stage = plan_.stages[i];
    std::map<int, int> per_node;
    for (const int rank : stage.ranks) ++per_node[rank / cluster_.devices_per_node];
    const bool fits =
        std::ranges::all_of(per_node, [&](const auto& item) { return item.second == stage.mesh.per_node; });
    if (static_cast<int>(per_node.size()) != stage.mesh.nodes || !fits) {
      add(at(i, "mesh.ranks"), "expected {} devices on each of {} nodes of {} devices, found ranks on {} nodes",
          stage.mesh.per_node, stage.mesh.nodes, cluster_.devices_per_node, per_node.size());
      return;
    }
    const auto tp = static_cast<std::size_t>(stage.policy.tensor_parallel);
    if (stage.policy.tensor_parallel < 1) return;
    for (std::size_t first = 0; first + tp <= stage.ranks.size(); first += tp) {
      for (std::size_t k = first; k < first + tp; ++k) {
        if (stage.ranks[k] / cluster_.devices_per_node == stage.ranks[first] / cluster_.devices_per_node) continue;
        add(at(i, "mesh.ranks"),
            "tensor-parallel ranks {} and {} are on different nodes; list the {} ranks of a group beside each other",
            stage.ranks[first], stage.ranks[k], tp);
        return;
      }
    }
  }

  void check_room() {
    TrainPlan copy = plan_;
    try {
      assign_ranks(copy, cluster_);
    } catch (const base::InputError& error) {
      add("stages", "{}", error.what());
    }
  }

  void check_schedule() {
    const auto stages = static_cast<int>(plan_.stages.size());
    if (plan_.schedule != Schedule::kInterleaved) {
      if (plan_.chunks != 1) {
        add("chunks", "expected 1 with schedule '{}', found {}; only 'interleaved' has chunks",
            schedule_name(plan_.schedule), plan_.chunks);
      }
      return;
    }
    if (stages < 2) add("schedule", "'interleaved' needs at least two stages, found one; use '1f1b'");
    if (plan_.chunks < 2) {
      add("chunks", "expected at least 2 with schedule 'interleaved', found {}; one chunk is '1f1b'", plan_.chunks);
      return;
    }
    for (std::size_t i = 0; i < plan_.stages.size(); ++i) {
      if (plan_.stages[i].layers % plan_.chunks == 0) continue;
      add(at(i, "layers"), "{} layers do not divide into {} chunks; move layers or change chunks",
          plan_.stages[i].layers, plan_.chunks);
    }
    if (plan_.accumulation % stages != 0) {
      add("accumulation", "'interleaved' needs a multiple of the {} stages, found {}", stages, plan_.accumulation);
    }
  }

  std::int64_t cluster_devices() const { return std::int64_t{cluster_.nodes} * cluster_.devices_per_node; }

  const TrainPlan& plan_;
  const spec::ModelConfig& model_;
  const cost::Cluster& cluster_;
  std::vector<Issue> issues_;
};

}  // namespace

std::vector<Issue> verify(const TrainPlan& plan, const spec::ModelConfig& model, const cost::Cluster& cluster) {
  return Verifier(plan, model, cluster).run();
}

void require_sound(const TrainPlan& plan, const spec::ModelConfig& model, const cost::Cluster& cluster) {
  const std::vector<Issue> issues = verify(plan, model, cluster);
  if (issues.empty()) return;
  std::string text;
  for (const Issue& issue : issues) text += fmt::format("\n  {}: {}", issue.field, issue.message);
  base::fail_input("the plan cannot run:{}", text);
}

}  // namespace gantry::plan
