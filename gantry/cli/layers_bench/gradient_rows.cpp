// Gradients with dropout: one layer in fp64, one mask, the directional derivative from backward against the central
// difference of the loss; the same check in bench/baselines/layers_gradient_check.py for PyTorch.
#include <ATen/ATen.h>

#include <cmath>

#include "gantry/cli/layers_bench/rows.h"
#include "gantry/cli/layers_bench/shapes.h"
#include "gantry/models/layer_stack.h"

namespace gantry::cli::layers_bench {
namespace {

constexpr std::int64_t kTinyHidden = 128, kTinyHeads = 4, kTinyLength = 256, kTinyBatch = 2;
constexpr double kDropout = 0.1, kStep = 1e-5;

double relative_error(layers::MemoryMode mode) {
  spec::ModelConfig config = layer_config("bert", 1, kDropout);
  config.hidden_size = kTinyHidden;
  config.num_heads = config.num_kv_heads = kTinyHeads;
  config.head_dim = kTinyHidden / kTinyHeads;
  config.intermediate_size = 4 * kTinyHidden;
  const auto stack = models::make_layer_stack(config, 0);
  stack->to(at::kDouble);
  stack->train();
  stack->memory = {uniform(mode)};
  at::manual_seed(0);
  const auto random = [] { return at::randn({kTinyBatch, kTinyLength, kTinyHidden}, at::kDouble); };
  const at::Tensor x = random().requires_grad_(true), weights = random(), direction = random();
  const auto loss = [&](const at::Tensor& point) {
    at::manual_seed(1);
    return at::sum(stack->forward(point) * weights);
  };
  loss(x).backward();
  const double analytic = at::sum(x.grad() * direction).item<double>();
  const at::NoGradGuard no_grad;
  const double ahead = loss(x + kStep * direction).item<double>(), behind = loss(x - kStep * direction).item<double>();
  const double numeric = (ahead - behind) / (2 * kStep);
  return std::abs(analytic - numeric) / std::abs(numeric);
}

}  // namespace

void gradient_rows(const Bench& bench) {
  if (!bench.wants("compile_rng")) return;
  double worst = 0;
  for (const layers::MemoryMode mode : spec::kMemoryModes) {
    if (mode != layers::MemoryMode::kInt8) worst = std::max(worst, relative_error(mode));
  }
  const char* row = "compile_rng";
  bench.out.row({row, worst, "relative", "bar", 1e-6, worst / 1e-6, 1});
  std::vector<std::string> arms{"eager"};
  if (!bench.options.no_compile) arms.insert(arms.end(), {"compile", "compile-0.5", "compile-0.2"});
  const auto server = python_server(bench, "layers_gradient_check.py",
                                    {{"hidden", kTinyHidden},
                                     {"heads", kTinyHeads},
                                     {"sequence_length", kTinyLength},
                                     {"dropout", kDropout},
                                     {"arms", arms}});
  if (!server->missing().empty()) return bench.out.missing(row, "PyTorch", server->missing());
  const base::Json result = server->run();
  for (const std::string& arm : arms) {
    const double theirs = result[arm]["relative_error"].get<double>();
    bench.out.row({row, worst, "relative", "PyTorch " + arm, theirs, worst / theirs, 1});
  }
}

}  // namespace gantry::cli::layers_bench
