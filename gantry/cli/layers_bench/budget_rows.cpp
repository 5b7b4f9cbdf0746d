// The largest batch in a memory budget, and how fast it trains. Everything in fp32 with dropout 0.1; torch.compile with
// a memory budget runs without dropout, because its gradients are wrong with it, beside Gantry without dropout.
#include <fmt/format.h>

#include "gantry/cli/layers_bench/rows.h"
#include "gantry/cli/layers_bench/step_arms.h"

namespace gantry::cli::layers_bench {
namespace {

constexpr double kGib = 1 << 30;
// Timed steps take this many tokens at most: more of them in a step only lengthen it.
constexpr std::int64_t kTimedTokens = 4096;
constexpr const char* kCompiled = "compile-sdpa-0.5";

struct Group {
  std::string batch_row;  ///< empty: none
  std::string speed_row;
  std::string asked_as;  ///< the name that --row takes for speed_row
  std::string family;
  std::int64_t sequence_length;
  double budget_gib;
};

std::vector<Group> groups() {
  return {{"max_batch_bert", "budget_throughput_bert", "budget_throughput_bert", "bert", 512, 1.0},
          {"", "budget_throughput_bert_128", "budget_throughput_bert", "bert", 128, 1.0},
          {"max_batch_gpt2", "budget_throughput_gpt2", "budget_throughput_gpt2", "gpt2", 1024, 2.5}};
}

std::vector<StepArm> budget_arms(const Bench& bench) {
  std::vector<StepArm> arms{{.gantry = true, .arm = "recompute"},
                            {.gantry = true, .arm = "rerun"},
                            {.arm = "eager"},
                            {.arm = "checkpoint-attention"},
                            {.arm = "checkpoint-layer"},
                            // Its gradients give way to activations: the largest batch that PyTorch's defaults allow.
                            {.arm = "checkpoint-attention+freed", .timed = false}};
  if (bench.options.no_compile) return arms;
  arms.push_back({.gantry = true, .arm = "recompute", .dropout = 0});
  arms.push_back({.arm = kCompiled, .dropout = 0});
  return arms;
}

void print_rows(const Bench& bench, const Group& group, const std::vector<StepResult>& results, bool batches,
                bool speeds) {
  const StepResult* ours = nullptr;
  const StepResult* rerun = nullptr;
  for (const StepResult& result : results) {
    if (result.arm.gantry) {
      if (!result.missing.empty()) base::fail("{}: {}", result.arm.name(), result.missing);
      (result.arm.arm == "rerun" ? rerun : ours) = &result;
      continue;
    }
    const std::string name = result.arm.name();
    const auto emit = [&](const std::string& row, double mine, const char* unit, double theirs) {
      bench.out.row({row, mine, unit, name, theirs, theirs > 0 ? mine / theirs : 0, bench.suite.rounds});
    };
    if (!result.missing.empty()) {
      if (batches) bench.out.missing(group.batch_row, name, result.missing);
      if (speeds && result.arm.timed) bench.out.missing(group.speed_row, name, result.missing);
      continue;
    }
    if (batches) {
      emit(group.batch_row, static_cast<double>(ours->batch), "sequences", static_cast<double>(result.batch));
      if (result.arm.dropout > 0) {
        emit(group.batch_row + "_rerun", static_cast<double>(rerun->batch), "sequences",
             static_cast<double>(result.batch));
      }
    }
    if (speeds && result.arm.timed) emit(group.speed_row, ours->speed(), "samples/s", result.speed());
  }
}

}  // namespace

void budget_rows(const Bench& bench) {
  for (const Group& group : groups()) {
    const bool batches = !group.batch_row.empty() && bench.wants(group.batch_row);
    const bool speeds = bench.wants(group.asked_as);
    if (!batches && !speeds) continue;
    const double gib = bench.options.budget_gib > 0 ? bench.options.budget_gib : group.budget_gib;
    const StepCase settings{.family = group.family,
                            .sequence_length = group.sequence_length,
                            .budget_bytes = static_cast<std::int64_t>(gib * kGib),
                            .timed_batch = kTimedTokens / group.sequence_length};
    const auto results = measure_steps(bench, settings, budget_arms(bench), speeds);
    print_rows(bench, group, results, batches, speeds);
    bench.out.table(step_table(
        speeds ? group.speed_row : group.batch_row,
        fmt::format("{} layers of {}, S={}: the largest batch whose step grows the resident "
                    "size by at most {:g} GiB, and its speed",
                    kStepLayers, group.family == "bert" ? "BERT-large" : "GPT-2 medium", group.sequence_length, gib),
        results));
  }
}

}  // namespace gantry::cli::layers_bench
