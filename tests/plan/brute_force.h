#pragma once
// The best plan of a small search problem by pricing every stage that the space allows with CostModel::price and trying
// every combination of stages. Shares with the search only the cost model, the warm-up counts and iteration_s.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "gantry/plan/inter_stage.h"
#include "gantry/plan/objective.h"
#include "gantry/plan/search.h"

namespace gantry::plan::testing {

class BruteForce {
 public:
  BruteForce(const SearchInput& input, const SearchSpace& space) : input_(input), space_(space) {}

  /// Seconds of the best plan; infinite where none fits.
  double best_s() {
    for (const bool chunked : space_.chunked_loss) {
      cost::CostOptions options = input_.cost;
      options.chunked_loss = options.chunked_loss || chunked;
      model_ =
          std::make_unique<cost::CostModel>(input_.model, input_.sequence, input_.profile, input_.cluster, options);
      for (int count = 1; count <= input_.global_batch; ++count) {
        if (input_.global_batch % count != 0 || (space_.micro_batch_powers && !power_of_two(count))) continue;
        accumulation_ = count;
        for (const Schedule schedule : space_.schedules) try_schedule(schedule);
      }
    }
    return best_s_;
  }
  std::int64_t priced() const { return priced_; }

 private:
  struct Option {
    double t_s = 0;
    double d_s = 0;
    double share = 0;  // of the gradients of weights
  };
  struct Place {
    int layers = 0;
    cost::Mesh mesh;
    int tensor_parallel = 0;  // 0: any
  };

  static bool power_of_two(int value) { return (value & (value - 1)) == 0; }
  int layers() const { return static_cast<int>(input_.model.num_layers); }

  void try_schedule(Schedule schedule) {
    schedule_ = schedule;
    const int most = std::min({space_.max_stages, layers(), input_.cluster.devices()});
    for (int stages = 1; stages <= most; ++stages) {
      if (schedule == Schedule::kZeroBubble && stages == 1) continue;
      stages_ = stages;
      if (schedule != Schedule::kInterleaved) {
        try_chunks(1);
        continue;
      }
      for (const int chunks : space_.chunks) {
        if (stages > 1 && accumulation_ % stages == 0 && layers() % (stages * chunks) == 0) try_chunks(chunks);
      }
    }
  }

  void try_chunks(int chunks) {
    chunks_ = chunks;
    options_.clear();
    for (const bool all : {false, true}) {
      // All or nothing: the same for every stage.
      if (!all && space_.checkpointing != Checkpointing::kAllOrNothing) continue;
      checkpoint_all_ = all;
      options_.clear();
      for (const int tp : space_.tensor_parallel) equal_stages(tp);
      if (space_.mixed_stages && schedule_ != Schedule::kInterleaved) mixed_stages({}, 0, 0);
    }
  }

  // Equal meshes and degrees, layers within the window.
  void equal_stages(int tp) {
    const int devices = input_.cluster.devices() / stages_;
    if (devices * stages_ != input_.cluster.devices()) return;
    for (const cost::Mesh& mesh : meshes()) {
      if (mesh.devices() == devices) split_layers({}, mesh, tp, 0);
    }
  }

  void split_layers(std::vector<Place> places, const cost::Mesh& mesh, int tp, int done) {
    if (static_cast<int>(places.size()) == stages_) {
      if (done == layers()) combine(places);
      return;
    }
    for (int count = chunks_; done + count <= layers(); count += chunks_) {
      const double mean = static_cast<double>(layers()) / stages_;
      const bool inside =
          count >= std::floor(mean) - space_.layer_window && count <= std::ceil(mean) + space_.layer_window;
      if (space_.layer_window >= 0 && !inside) continue;
      places.push_back({count, mesh, tp});
      split_layers(places, mesh, tp, done + count);
      places.pop_back();
    }
  }

  void mixed_stages(std::vector<Place> places, int done, int devices) {
    if (static_cast<int>(places.size()) == stages_) {
      if (done == layers() && devices == input_.cluster.devices()) combine(places);
      return;
    }
    for (const cost::Mesh& mesh : meshes()) {
      if (devices + mesh.devices() > input_.cluster.devices()) continue;
      for (int count = 1; done + count <= layers(); ++count) {
        places.push_back({count, mesh, 0});
        mixed_stages(places, done + count, devices + mesh.devices());
        places.pop_back();
      }
    }
  }

  std::vector<cost::Mesh> meshes() const {
    const cost::Cluster& cluster = input_.cluster;
    std::vector<cost::Mesh> list;
    for (int n = 1; n <= cluster.devices_per_node; ++n) {
      if (cluster.devices_per_node % n == 0) list.push_back({1, n});
    }
    for (int n = 2; n <= cluster.nodes; ++n) {
      if (cluster.nodes % n == 0) list.push_back({n, cluster.devices_per_node});
    }
    return list;
  }

  void combine(const std::vector<Place>& places) {
    std::vector<const std::vector<Option>*> lists;
    for (int i = 0; i < stages_; ++i) lists.push_back(&options_of(places[static_cast<std::size_t>(i)], i));
    std::vector<StageChoice> chosen;
    choose(lists, chosen, 1.0);
  }

  void choose(const std::vector<const std::vector<Option>*>& lists, std::vector<StageChoice>& chosen, double share) {
    if (chosen.size() == lists.size()) {
      best_s_ = std::min(best_s_, iteration_s(chosen, schedule_objective(schedule_, chunks_, accumulation_, share)));
      return;
    }
    for (const Option& option : *lists[chosen.size()]) {
      chosen.push_back({1, 0, {option.t_s, option.d_s, 0}});
      choose(lists, chosen, std::min(share, option.share));
      chosen.pop_back();
    }
  }

  // Prices of all policies of a stage that fit. Those that another of the same share beats in t and d go: an iteration
  // grows with both.
  const std::vector<Option>& options_of(const Place& place, int index) {
    const auto key = std::tuple{place.layers, place.mesh.nodes, place.mesh.per_node, place.tensor_parallel, index};
    const auto [entry, fresh] = options_.try_emplace(key);
    if (!fresh) return entry->second;
    std::vector<Option>& list = entry->second;
    cost::StageQuery query;
    query.layers = place.layers;
    query.first = index == 0;
    query.last = index == stages_ - 1;
    query.warmup = warmup_micro_batches(schedule_, chunks_, stages_, stages_ - 1 - index, accumulation_);
    query.mesh = place.mesh;
    query.accumulation = accumulation_;
    query.chunks = chunks_;
    for (const int tp : space_.tensor_parallel) {
      if (place.tensor_parallel == 0 || tp == place.tensor_parallel) try_degree(query, tp, list);
    }
    std::ranges::sort(list, {}, [](const Option& o) { return std::tuple{o.share, o.t_s, o.d_s}; });
    std::vector<Option> kept;
    for (const Option& option : list) {
      const bool beaten = !kept.empty() && kept.back().share == option.share && kept.back().d_s <= option.d_s;
      if (!beaten) kept.push_back(option);
    }
    list = std::move(kept);
    return list;
  }

  void try_degree(cost::StageQuery query, int tp, std::vector<Option>& list) {
    const int devices = query.mesh.devices();
    const auto samples = static_cast<int>(input_.global_batch / accumulation_);
    if (query.mesh.per_node % tp != 0 || !model_->divisible(tp) || samples % (devices / tp) != 0) return;
    cost::Policy policy;
    policy.tensor_parallel = tp;
    policy.data_parallel = devices / tp;
    policy.micro_batch = samples / policy.data_parallel;
    if (policy.micro_batch > space_.max_micro_batch) return;
    if (space_.micro_batch_powers && !power_of_two(policy.micro_batch)) return;
    for (const bool sequence_parallel : space_.sequence_parallel) {
      if (sequence_parallel && (tp == 1 || input_.sequence % tp != 0)) continue;
      policy.sequence_parallel = sequence_parallel;
      for (const cost::LayerMode mode : space_.modes) {
        policy.mode = mode;
        query.policy = policy;
        try_policies(query, list);
      }
    }
  }

  void try_policies(cost::StageQuery query, std::vector<Option>& list) {
    const double share = weight_gradient_share(*model_, query.policy.tensor_parallel);
    const bool narrow = space_.zero_limits_pipeline && stages_ > 1;
    for (const int zero : space_.zero) {
      if (narrow && zero > 1) continue;
      query.policy.zero = zero;
      for_ratios(space_.weights, narrow, query.policy.weight_offload, [&] {
        for_ratios(space_.gradients, narrow, query.policy.gradient_offload, [&] {
          const bool pruned = query.policy.weight_offload > 0 && query.policy.gradient_offload == 0;
          if (space_.weights_need_gradients && pruned) return;
          for_ratios(space_.optimizer, narrow, query.policy.optimizer_offload, [&] {
            for_ratios(space_.activations, narrow, query.policy.activation_offload,
                       [&] { try_checkpoints(query, share, list); });
          });
        });
      });
    }
  }

  static void for_ratios(const std::vector<double>& ratios, bool none, double& ratio,
                         const std::function<void()>& body) {
    for (const double value : ratios) {
      if (none && value > 0) continue;
      ratio = value;
      body();
    }
  }

  void try_checkpoints(cost::StageQuery query, double share, std::vector<Option>& list) {
    for (int count = 0; count <= query.layers; ++count) {
      const bool ends = count == 0 || count == query.layers;
      switch (space_.checkpointing) {
        case Checkpointing::kNone:
          if (count > 0) continue;
          break;
        case Checkpointing::kAll:
          if (count < query.layers) continue;
          break;
        case Checkpointing::kAllOrNothing:
          if (!ends || (count > 0) != checkpoint_all_) continue;
          break;
        case Checkpointing::kTuned: break;
      }
      query.checkpointed = count;
      const cost::StageCost cost = model_->price(query);
      ++priced_;
      if (cost.peak_bytes() > model_->device_bytes() || cost.host_bytes > model_->host_bytes_per_device()) continue;
      list.push_back({cost.t_s, cost.d_s, share});
    }
  }

  const SearchInput& input_;
  const SearchSpace& space_;
  std::unique_ptr<cost::CostModel> model_;
  int accumulation_ = 1;
  Schedule schedule_ = Schedule::kOneFOneB;
  int stages_ = 1;
  int chunks_ = 1;
  bool checkpoint_all_ = true;
  std::map<std::tuple<int, int, int, int, int>, std::vector<Option>> options_;
  double best_s_ = std::numeric_limits<double>::infinity();
  std::int64_t priced_ = 0;
};

}  // namespace gantry::plan::testing
