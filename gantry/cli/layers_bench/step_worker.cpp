#include "gantry/cli/layers_bench/step_worker.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <malloc.h>

#include <algorithm>

#include "gantry/base/check.h"
#include "gantry/base/interrupt.h"
#include "gantry/base/options.h"
#include "gantry/base/process.h"
#include "gantry/base/timer.h"
#include "gantry/cli/bench_server.h"
#include "gantry/cli/layers_bench/shapes.h"
#include "gantry/models/layer_stack.h"
#include "gantry/tensor/dtype.h"
#include "gantry/train/optimizer.h"

namespace gantry::cli::layers_bench {
namespace {

constexpr double kNear = 1.03;
constexpr std::int64_t kFineness = 32;  // batches that differ by one part in this many are not told apart
constexpr double kLearningRate = 1e-5;

// Matrices first, so that query, key and value of a layer are neighbours and multiply as one.
std::vector<train::NamedParameter> parameters_of(const models::LayerStack& stack) {
  std::vector<train::NamedParameter> result;
  for (const auto& item : stack.named_parameters()) {
    result.push_back({item.key(), item.value(), item.value().dim() == 2});
  }
  std::ranges::stable_partition(result, [](const auto& item) { return item.weight_decay; });
  return result;
}

// A stack with flat parameters, gradients and AdamW, as `gantry train` keeps them.
class Trainer {
 public:
  explicit Trainer(const WorkerSettings& settings)
      : settings_(settings),
        config_(layer_config(settings.family, settings.layers, settings.dropout)),
        stack_(models::make_layer_stack(config_, 0)),
        dtype_(tensor::parse_dtype(settings.dtype)),
        parameters_(parameters_of(*stack_), dtype_, dtype_),
        optimizer_(parameters_, {.beta2 = 0.999, .weight_decay = 0.01, .clip_norm = 0}) {
    stack_->memory.assign(stack_->memory.size(), arm_memory(settings.arm));
    stack_->train();
  }

  struct Step {
    double seconds = 0;
    std::int64_t growth_bytes = 0;
  };

  Step step(std::int64_t batch) {
    const std::vector<std::int64_t> sizes{batch, settings_.sequence_length, config_.hidden_size};
    const at::Tensor x = at::randn(sizes).to(dtype_), gradient = at::randn(sizes).to(dtype_);
    ::malloc_trim(0);
    const auto rest = static_cast<std::int64_t>(base::resident_bytes());
    if (!base::reset_peak_memory()) base::fail("this system does not allow /proc/self/clear_refs; no peak is known");
    const base::Timer timer;
    parameters_.sinks().begin_step();
    {
      const tensor::GradientSinks::Guard guard(parameters_.sinks());
      stack_->forward(x).backward(gradient);
    }
    collect_gradients();
    parameters_.sinks().finish_step();
    if (!optimizer_.step(kLearningRate).applied) base::fail("the gradients are not finite");
    const Step result{timer.seconds(), static_cast<std::int64_t>(base::peak_resident_bytes()) - rest};
    ::malloc_trim(0);  // the other arms of a round share this machine's memory
    return result;
  }

 private:
  // Those of operators that know no slots.
  void collect_gradients() {
    for (const train::NamedParameter& item : parameters_.parameters()) {
      at::Tensor parameter = item.parameter;
      if (!parameter.grad().defined()) continue;
      tensor::accumulate(*parameters_.sinks().find(parameter), parameter.grad());
      parameter.mutable_grad().reset();
    }
  }

  WorkerSettings settings_;
  spec::ModelConfig config_;
  std::shared_ptr<models::LayerStack> stack_;
  at::ScalarType dtype_;
  train::FlatParameters parameters_;
  train::FlatAdamw optimizer_;
};

WorkerSettings read_settings(const std::string& text) {
  WorkerSettings settings;
  base::options_from_json(settings, base::parse_json(text, "--worker"), "--worker");
  const auto in_range = [](const char* name, std::int64_t value, std::int64_t least, std::int64_t most) {
    GANTRY_CHECK(value >= least && value <= most, "--worker: {} is {}, expected {} to {}", name, value, least, most);
  };
  in_range("layers", settings.layers, 1, 256);
  in_range("sequence_length", settings.sequence_length, 1, 1 << 16);
  in_range("budget_bytes", settings.budget_bytes, 1, std::int64_t{1} << 50);
  in_range("batch", settings.batch, 0, 1 << 20);
  in_range("timed_batch", settings.timed_batch, 0, 1 << 20);
  in_range("threads", settings.threads, 1, 1 << 10);
  GANTRY_CHECK(settings.dropout >= 0 && settings.dropout <= 1, "--worker: dropout is {}, expected 0 to 1",
               settings.dropout);
  return settings;
}

}  // namespace

std::int64_t largest_batch(const std::function<std::int64_t(std::int64_t)>& growth, std::int64_t budget) {
  struct Measured {
    std::int64_t batch, bytes;
  };
  Measured fits{2, growth(2)};
  const std::int64_t first = growth(1);
  if (fits.bytes > budget) return first <= budget ? 1 : 0;
  std::int64_t too_large = 0;  // 0: none seen
  while (too_large == 0 || too_large - fits.batch > std::max<std::int64_t>(1, fits.batch / kFineness)) {
    const double slope = std::max(1.0, static_cast<double>(fits.bytes - first) / static_cast<double>(fits.batch - 1));
    const double room = static_cast<double>(budget - fits.bytes) / slope;
    if (fits.batch > 2 && static_cast<double>(fits.bytes) + slope > kNear * static_cast<double>(budget)) break;
    const std::int64_t margin = std::max<std::int64_t>(1, (too_large > 0 ? too_large - fits.batch : fits.batch) / 8);
    const std::int64_t most = too_large > 0 ? too_large - margin : 4 * fits.batch;
    const auto line =
        static_cast<std::int64_t>(std::min(static_cast<double>(fits.batch) + room, static_cast<double>(most)));
    const std::int64_t trial = std::clamp(line, fits.batch + margin, most);
    const Measured tried{trial, growth(trial)};
    if (tried.bytes > budget) {
      too_large = trial;
    } else {
      fits = tried;
    }
  }
  return fits.batch;
}

void serve_steps(const std::string& settings_json) {
  const WorkerSettings settings = read_settings(settings_json);
  at::set_num_threads(static_cast<int>(settings.threads));
  at::manual_seed(0);
  Trainer trainer(settings);
  const auto growth = [&](std::int64_t batch) {
    if (base::interrupted()) throw base::Interrupted("interrupted");
    return trainer.step(batch).growth_bytes;
  };
  for (int warm_up = 0; warm_up < 2; ++warm_up) trainer.step(1);
  std::int64_t batch = settings.batch > 0 ? settings.batch : largest_batch(growth, settings.budget_bytes);
  std::int64_t grown = batch > 0 ? growth(batch) : 0;
  // Peaks vary by some pages: a batch must fit twice.
  while (settings.batch == 0 && grown > settings.budget_bytes) grown = --batch > 0 ? growth(batch) : 0;
  const std::int64_t timed = settings.timed_batch > 0 ? std::min(batch, settings.timed_batch) : batch;
  serve_measurements({{"batch", batch}, {"timed_batch", timed}, {"growth_bytes", grown}}, [&] {
    const Trainer::Step step = timed > 0 ? trainer.step(timed) : Trainer::Step{};
    const double speed = timed > 0 ? static_cast<double>(timed) / step.seconds : 0;
    return base::OrderedJson{{"seconds", step.seconds}, {"samples_per_s", speed}, {"growth_bytes", step.growth_bytes}};
  });
}

}  // namespace gantry::cli::layers_bench
