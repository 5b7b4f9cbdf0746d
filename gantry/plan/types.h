#pragma once
// The training plan as data: what `gantry plan` writes, people edit and `gantry train` runs. Types only.
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/cost/policy.h"

namespace gantry::plan {

inline constexpr int kPlanSchema = 1;

enum class Schedule : std::uint8_t {
  kOneFOneB,
  kInterleaved,  ///< 1F1B over `chunks` model chunks a stage (Megatron's virtual pipeline)
  kZeroBubble,   ///< ZB-H1: weight gradients fill the cool-down bubble; every stage holds what 1F1B's first does
};
std::string_view schedule_name(Schedule schedule);  ///< "1f1b", "interleaved", "zero_bubble"

inline constexpr Schedule kAllSchedules[] = {Schedule::kOneFOneB, Schedule::kInterleaved, Schedule::kZeroBubble};

// Limits of what a plan file may say, so that sums and products stay far from overflow.
inline constexpr int kMaxLayers = 100'000;     ///< of all stages
inline constexpr int kMaxDevices = 1'000'000;  ///< of all stages

struct StagePrediction {
  double t_s = 0;
  double d_s = 0;
  double memory_forward_bytes = 0;
  double memory_backward_bytes = 0;
  double host_bytes = 0;

  bool operator==(const StagePrediction&) const = default;
};

struct Stage {
  int first_layer = 0;
  int layers = 1;
  int checkpointed = 0;  ///< the first ones of the stage
  cost::Mesh mesh;
  std::vector<int> ranks;  ///< global ranks, tensor-parallel neighbours adjacent
  cost::Policy policy;
  std::optional<StagePrediction> predicted;

  bool operator==(const Stage&) const = default;
};

struct PlanPrediction {
  double iteration_s = 0;
  double tokens_per_s = 0;

  bool operator==(const PlanPrediction&) const = default;
};

/// The second-best plan in one line.
struct RunnerUp {
  double iteration_s = 0;
  std::string difference;  ///< how it differs from this plan: "accumulation 8, 2 stages"

  bool operator==(const RunnerUp&) const = default;
};

struct TrainPlan {
  int schema = kPlanSchema;
  std::string model;       ///< name or path as given
  std::string model_hash;  ///< of its configuration
  std::string cluster;
  std::string profile;
  std::string profile_hash;
  std::string dtype = "fp16";
  bool flash_attention = true;
  bool chunked_loss = false;
  std::int64_t sequence = 0;      ///< tokens
  std::int64_t global_batch = 0;  ///< sequences an iteration
  int accumulation = 1;           ///< micro-batches an iteration (G)
  Schedule schedule = Schedule::kOneFOneB;
  int chunks = 1;  ///< of kInterleaved
  std::vector<Stage> stages;
  std::optional<PlanPrediction> predicted;
  std::optional<RunnerUp> runner_up;
  /// How many numbers behind the prediction come from where ("measured", "roofline", ...); empty: not known.
  std::map<std::string, std::int64_t> provenance;

  bool operator==(const TrainPlan&) const = default;

  int num_layers() const {
    int sum = 0;
    for (const Stage& stage : stages) sum += stage.layers;
    return sum;
  }
};

}  // namespace gantry::plan
