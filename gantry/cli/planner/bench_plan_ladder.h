#pragma once
// The cases of the Mist paper (EuroSys '25, section 6.1): models of 1.3 to 22 billion parameters on 2 to 32 devices,
// and what the search makes of them.
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/plan/search.h"

namespace gantry::cli::planner {

struct Rung {
  std::string_view size;  ///< of gpt-<size> and llama-<size>
  int devices;
  int batch;
};
inline constexpr std::array<Rung, 5> kRungs = {
    {{"1.3b", 2, 32}, {"2.7b", 4, 64}, {"7b", 8, 128}, {"13b", 16, 256}, {"22b", 32, 512}}};

/// "l4" or "a100" in nodes of eight: "l4-1x2", "l4-4x8".
std::string cluster_name(std::string_view kind, int devices);
/// `layers` in place of the model's own; 0: those.
plan::SearchInput bench_input(const std::string& model, const std::string& cluster, int batch, std::int64_t sequence,
                              int layers = 0);
/// GPT or Llama of a rung on "l4" (2,048 tokens) or "a100" (4,096).
plan::SearchInput rung_input(std::string_view family, const Rung& rung, std::string_view kind);

struct TimedSearch {
  double cpu_s = 0;        ///< of the process
  double iteration_s = 0;  ///< of the best plan; infinite: nothing fits
  plan::SearchResult result;
};
/// One search; stops with base::Interrupted after SIGINT.
TimedSearch timed_search(const plan::SearchInput& input, const plan::SearchSpace& space);

/// A case's searches.
struct LadderCase {
  std::string model;
  std::string cluster;
  double megatron_s = 0;
  double mist_s = 0;
  std::vector<double> steps_s;     ///< by ablation_spaces(); empty where they were not asked for
  std::array<int, 4> operators{};  ///< priced for the Megatron space, by cost::Provenance
};
LadderCase run_case(const plan::SearchInput& input, bool ablation);

/// exp of the mean of logarithms; of finite positive values only, 0 without any.
double geometric_mean(const std::vector<double>& values);

/// The artifact's published plan for GPT-22B on 32 L4 (docs/results/plan.md): 128 micro-batches of 1, 8 stages of 6
/// layers on 1 x 4 devices, dp 4, tp 1, all but the last three stages with one checkpointed layer, optimizer states
/// offloaded by .625 to 1, activations by .75 falling to 0. What is not stated (ZeRO 1 to 3, the ratios in those
/// ranges) is chosen for the least iteration among what fits. No predictions: nothing fits.
plan::TrainPlan published_plan(const plan::SearchInput& input);

}  // namespace gantry::cli::planner
