#include "gantry/cli/layers_bench/suite.h"

#include <ATen/Parallel.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "gantry/base/check.h"
#include "gantry/cli/layers_bench/pareto.h"
#include "gantry/cli/layers_bench/rows.h"
#include "gantry/cli/layers_bench/step_worker.h"

namespace gantry::cli::layers_bench {
namespace {

constexpr double kLeastBudgetGib = 0.001, kMostBudgetGib = 1 << 20;

// One function may print several of them; every name is also what --row takes.
constexpr const char* kRows[] = {"gelu_fwd_bwd",
                                 "layernorm_fwd_bwd",
                                 "flash_dropout_fwd_bwd_512",
                                 "flash_dropout_fwd_bwd_2048",
                                 "flash_fwd_bwd_vs_sdpa",
                                 "linear_ce_memory",
                                 "linear_ce_time",
                                 "saved_bytes_bert_tempo",
                                 "saved_bytes_bert_flash",
                                 "saved_bytes_bert_floor",
                                 "saved_bytes_bert_rerun",
                                 "saved_bytes_bert_rerun_mlp",
                                 "saved_bytes_bert_rerun_attention",
                                 "saved_bytes_bert_int8",
                                 "saved_bytes_bert_no_dropout",
                                 "saved_bytes_bert_bf16",
                                 "saved_bytes_gpt2",
                                 "saved_bytes_gpt2_bf16",
                                 "saved_bytes_llama",
                                 "saved_bytes_llama_bf16",
                                 "compile_rng",
                                 "rerun_time_bert",
                                 "max_batch_bert",
                                 "max_batch_gpt2",
                                 "budget_throughput_bert",
                                 "budget_throughput_gpt2",
                                 "pareto"};

}  // namespace

std::string Bench::script(const std::string& name) const {
  return (std::filesystem::path(suite.source) / "bench/baselines" / name).string();
}

void bench_layers(const Bench& bench) {
  if (!bench.options.worker.empty()) return serve_steps(bench.options.worker);
  for (const std::string& row : bench.suite.row) {
    GANTRY_CHECK(std::ranges::find(kRows, row) != std::end(kRows), "suite layers has no row '{}'; it has {}", row,
                 fmt::join(kRows, ", "));
  }
  GANTRY_CHECK(bench.suite.rounds > 0, "--rounds is {}, expected at least 1", bench.suite.rounds);
  const double budget_gib = bench.options.budget_gib;
  GANTRY_CHECK(budget_gib == 0 || (budget_gib >= kLeastBudgetGib && budget_gib <= kMostBudgetGib),
               "--budget-gib is {}, expected 0 (each row's own) or {} to {:.0f}", budget_gib, kLeastBudgetGib,
               kMostBudgetGib);
  at::set_num_threads(static_cast<int>(bench.threads));
  operator_rows(bench);
  attention_rows(bench);
  loss_rows(bench);
  saved_rows(bench);
  gradient_rows(bench);
  rerun_row(bench);
  budget_rows(bench);
  pareto_row(bench);
  bench.out.finish();
}

}  // namespace gantry::cli::layers_bench
