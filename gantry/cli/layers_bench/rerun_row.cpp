#include <ATen/ATen.h>

#include "gantry/cli/layers_bench/rows.h"
#include "gantry/cli/layers_bench/shapes.h"
#include "gantry/cli/layers_bench/timing.h"
#include "gantry/models/layer_stack.h"

namespace gantry::cli::layers_bench {

void rerun_row(const Bench& bench) {
  if (!bench.wants("rerun_time_bert")) return;
  const KeepPages keep;
  at::manual_seed(0);
  const spec::ModelConfig config = layer_config("bert", 1, 0.1);
  const auto stack = models::make_layer_stack(config, 0);
  stack->train();
  const at::Tensor x = at::randn({4, 512, config.hidden_size}).requires_grad_(true);
  const at::Tensor gradient = at::randn(x.sizes());
  const std::vector<std::string> names{"recompute", "rerun-mlp", "rerun-attention", "rerun"};
  std::vector<Arm> arms;
  for (const std::string& name : names) {
    arms.push_back({name, [&stack, &x, &gradient, memory = arm_memory(name)] {
                      stack->memory = {memory};
                      stack->forward(x).backward(gradient);
                    }});
  }
  const std::vector<double> seconds = median_seconds(arms, bench.suite.rounds, 1.0);
  const char* rows[] = {"", "rerun_time_bert_mlp", "rerun_time_bert_attention", "rerun_time_bert"};
  for (std::size_t i = 1; i < names.size(); ++i) {
    bench.out.row({rows[i], 1e3 * seconds[i], "ms", "Gantry recompute", 1e3 * seconds[0], seconds[i] / seconds[0],
                   bench.suite.rounds});
  }
}

}  // namespace gantry::cli::layers_bench
