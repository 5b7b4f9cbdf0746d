// Gradients come from autograd for both sides; they are computed, then dropped.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "gantry/cli/layers_bench/rows.h"
#include "gantry/cli/layers_bench/timing.h"
#include "gantry/kernels/activation/activation.h"
#include "gantry/kernels/inplace_norm/inplace_norm.h"

namespace gantry::cli::layers_bench {
namespace {

constexpr double kMs = 1e3;

void compare(const Bench& bench, const std::string& row, const std::string& baseline, const Arm& ours,
             const Arm& theirs) {
  const std::vector<double> seconds = median_seconds({ours, theirs}, bench.suite.rounds);
  bench.out.row({row, kMs * seconds[0], "ms", baseline, kMs * seconds[1], seconds[1] / seconds[0], bench.suite.rounds});
}

at::Tensor leaf(at::IntArrayRef sizes, at::ScalarType type) { return at::randn(sizes).to(type).requires_grad_(true); }

void activation_row(const Bench& bench, const std::string& row, at::ScalarType type) {
  const at::Tensor x = leaf({4096, 4096}, type), dy = at::randn({4096, 4096}).to(type);
  const Arm ours{"ours", [&] { torch::autograd::grad({kernels::activation(x, {})}, {x}, {dy}); }};
  const Arm eager{"eager", [&] { torch::autograd::grad({at::gelu(x)}, {x}, {dy}); }};
  compare(bench, row, "PyTorch gelu", ours, eager);
}

void norm_row(const Bench& bench, const std::string& row, at::ScalarType type) {
  constexpr std::int64_t kColumns = 1024;
  constexpr double kEps = 1e-12;
  const at::Tensor x = leaf({8192, kColumns}, type), dy = at::randn({8192, kColumns}).to(type);
  const at::Tensor weight = (1 + 0.1 * at::randn({kColumns})).to(type).requires_grad_(true);
  const at::Tensor bias = (0.1 * at::randn({kColumns})).to(type).requires_grad_(true);
  const Arm ours{"ours", [&] {
                   torch::autograd::grad({kernels::layer_norm_inplace(x, weight, bias, kEps)}, {x, weight, bias}, {dy});
                 }};
  const Arm eager{"eager", [&] {
                    torch::autograd::grad({at::layer_norm(x, {kColumns}, weight, bias, kEps)}, {x, weight, bias}, {dy});
                  }};
  compare(bench, row, "PyTorch layer_norm", ours, eager);
}

}  // namespace

void operator_rows(const Bench& bench) {
  const KeepPages keep;
  at::manual_seed(0);
  if (bench.wants("gelu_fwd_bwd")) {
    activation_row(bench, "gelu_fwd_bwd", at::kFloat);
    activation_row(bench, "gelu_fwd_bwd_bf16", at::kBFloat16);
  }
  if (bench.wants("layernorm_fwd_bwd")) {
    norm_row(bench, "layernorm_fwd_bwd", at::kFloat);
    norm_row(bench, "layernorm_fwd_bwd_bf16", at::kBFloat16);
  }
}

}  // namespace gantry::cli::layers_bench
