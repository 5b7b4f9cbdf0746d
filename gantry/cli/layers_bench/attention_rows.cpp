// Queries, keys and values lie in memory as a projection writes them, [B, T, heads, D]; PyTorch gets transposed views,
// as its own modules make them.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>

#include "gantry/cli/layers_bench/rows.h"
#include "gantry/cli/layers_bench/timing.h"
#include "gantry/kernels/attention/attention.h"
#include "gantry/kernels/dropout/dropout.h"

namespace gantry::cli::layers_bench {
namespace {

constexpr std::int64_t kAttentionBatch = 2, kHeads = 16, kHeadDim = 64;

struct Case {
  std::string row;
  std::int64_t length;
  double dropout = 0;
  bool causal = false;
  at::ScalarType type = at::kFloat;
};

void attention_row(const Bench& bench, const Case& c) {
  const std::array<std::int64_t, 4> sizes{kAttentionBatch, c.length, kHeads, kHeadDim};
  std::vector<at::Tensor> inputs;
  for (int i = 0; i < 3; ++i) inputs.push_back(at::randn(sizes).to(c.type).requires_grad_(true));
  const at::Tensor dy = at::randn(sizes).to(c.type);
  const auto ours = [&] {
    const kernels::AttentionOptions options{.causal = c.causal, .dropout = kernels::draw_dropout(c.dropout)};
    torch::autograd::grad({kernels::flash_attention(inputs[0], inputs[1], inputs[2], options)}, inputs, {dy});
  };
  const auto eager = [&] {
    const at::Tensor heads =
        at::scaled_dot_product_attention(inputs[0].transpose(1, 2), inputs[1].transpose(1, 2),
                                         inputs[2].transpose(1, 2), std::nullopt, c.dropout, c.causal);
    torch::autograd::grad({heads.transpose(1, 2)}, inputs, {dy});
  };
  const std::vector<double> seconds = median_seconds({{"ours", ours}, {"eager", eager}}, bench.suite.rounds);
  bench.out.row({c.row, 1e3 * seconds[0], "ms", c.dropout > 0 ? "PyTorch SDPA, dropout 0.1" : "PyTorch SDPA",
                 1e3 * seconds[1], seconds[1] / seconds[0], bench.suite.rounds});
}

}  // namespace

void attention_rows(const Bench& bench) {
  const KeepPages keep;
  at::manual_seed(0);
  for (const std::int64_t length : {512, 2048}) {
    const std::string row = "flash_dropout_fwd_bwd_" + std::to_string(length);
    if (!bench.wants(row)) continue;
    attention_row(bench, {.row = row, .length = length, .dropout = 0.1});
    attention_row(bench, {.row = row + "_bf16", .length = length, .dropout = 0.1, .type = at::kBFloat16});
  }
  if (!bench.wants("flash_fwd_bwd_vs_sdpa")) return;
  attention_row(bench, {.row = "flash_fwd_bwd_vs_sdpa", .length = 2048});
  attention_row(bench, {.row = "flash_fwd_bwd_vs_sdpa_causal", .length = 2048, .causal = true});
  attention_row(bench, {.row = "flash_fwd_bwd_vs_sdpa_bf16", .length = 2048, .type = at::kBFloat16});
}

}  // namespace gantry::cli::layers_bench
