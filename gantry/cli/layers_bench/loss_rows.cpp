// Ours and eager PyTorch in this process; torch.compile and PyTorch's chunked operator from bench/baselines/ce_head.py,
// in the same rounds.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <memory>

#include "gantry/base/interrupt.h"
#include "gantry/base/statistics.h"
#include "gantry/base/timer.h"
#include "gantry/cli/bench_server.h"
#include "gantry/cli/layers_bench/rows.h"
#include "gantry/kernels/cross_entropy/linear_cross_entropy.h"
#include "gantry/tensor/live_bytes.h"

namespace gantry::cli::layers_bench {
namespace {

constexpr std::int64_t kTokens = 4096, kHidden = 768, kVocab = 50257;

/// One way to compute loss and gradients: in this process or behind a server.
struct LossArm {
  std::string name;
  std::function<void()> run;            // empty for a server
  std::unique_ptr<BenchServer> server;  // null in this process
  std::int64_t rounds = 0;
  std::vector<double> seconds = {};
  double peak_mib = 0;

  void measure() {
    if (server != nullptr) {
      const base::Json answer = server->run();
      seconds.push_back(base::json_get<double>(answer, "seconds", name));
      peak_mib = base::json_get<double>(answer, "peak_live_bytes", name) / kMib;
      return;
    }
    const tensor::LiveBytes live;
    const base::Timer timer;
    run();
    seconds.push_back(timer.seconds());
    peak_mib = static_cast<double>(live.peak()) / kMib;
  }
};

LossArm python_arm(const Bench& bench, const std::string& arm, std::int64_t rounds) {
  // The chunked operator takes most of a minute a call and compiles nothing: it needs no call to warm up.
  std::vector<std::string> command{bench.python, bench.script("ce_head.py"),    "--arm",    arm,
                                   "--threads",  std::to_string(bench.threads), "--tokens", std::to_string(kTokens),
                                   "--vocab",    std::to_string(kVocab),        "--hidden", std::to_string(kHidden),
                                   "--warmup",   arm == "chunked" ? "0" : "1"};
  return {.name = "PyTorch " + arm,
          .run = nullptr,
          .server = std::make_unique<BenchServer>("ce_head.py " + arm, command),
          .rounds = rounds};
}

std::vector<LossArm> all_arms(const Bench& bench) {
  const at::Tensor hidden = at::randn({kTokens, kHidden}).requires_grad_(true);
  const at::Tensor weight = (0.02 * at::randn({kVocab, kHidden})).requires_grad_(true);
  const at::Tensor labels = at::randint(kVocab, {kTokens}, at::kLong);
  const auto gradients = [hidden, weight](const at::Tensor& loss) { torch::autograd::grad({loss}, {hidden, weight}); };
  const std::int64_t rounds = bench.suite.rounds;
  std::vector<LossArm> arms;
  arms.push_back({.name = "Gantry",
                  .run = [=] { gradients(kernels::linear_cross_entropy(hidden, weight, {}, labels)); },
                  .server = nullptr,
                  .rounds = rounds});
  arms.push_back({.name = "PyTorch eager",
                  .run = [=] { gradients(at::cross_entropy_loss(at::linear(hidden, weight), labels)); },
                  .server = nullptr,
                  .rounds = rounds});
  if (!bench.options.no_compile) arms.push_back(python_arm(bench, "compile", rounds));
  arms.push_back(python_arm(bench, "chunked", 1));
  return arms;
}

}  // namespace

void loss_rows(const Bench& bench) {
  const bool memory = bench.wants("linear_ce_memory"), time = bench.wants("linear_ce_time");
  if (!memory && !time) return;
  at::manual_seed(0);
  std::vector<LossArm> arms = all_arms(bench);
  for (LossArm& arm : arms) {
    if (arm.run != nullptr) arm.run();  // warms up
  }
  for (std::int64_t round = 0; round < (time ? bench.suite.rounds : 1); ++round) {
    for (LossArm& arm : arms) {
      if (base::interrupted()) throw base::Interrupted("interrupted");
      const bool present = arm.server == nullptr || arm.server->missing().empty();
      if (present && round < arm.rounds) arm.measure();
    }
  }
  const LossArm& ours = arms.front();
  const double seconds = base::median(ours.seconds);
  for (std::size_t i = 1; i < arms.size(); ++i) {
    const LossArm& arm = arms[i];
    const auto runs = static_cast<std::int64_t>(arm.seconds.size());
    if (runs == 0) {
      if (memory) bench.out.missing("linear_ce_memory", arm.name, arm.server->missing());
      if (time) bench.out.missing("linear_ce_time", arm.name, arm.server->missing());
      continue;
    }
    if (memory) {
      bench.out.row(
          {"linear_ce_memory", ours.peak_mib, "MiB", arm.name, arm.peak_mib, ours.peak_mib / arm.peak_mib, 1});
    }
    if (time) {
      const double theirs = base::median(arm.seconds);
      bench.out.row({"linear_ce_time", seconds, "s", arm.name, theirs, theirs / seconds, runs});
    }
  }
}

}  // namespace gantry::cli::layers_bench
