#include "gantry/train/step.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

#include "gantry/base/process.h"
#include "gantry/spec/tensor_table.h"
#include "gantry/tensor/dtype.h"
#include "gantry/tensor/live_bytes.h"
#include "gantry/train/lora.h"

namespace gantry::train {
namespace {

std::vector<NamedParameter> all_parameters(const models::LanguageModel& model) {
  auto by_name = model.parameter_map();
  std::vector<NamedParameter> result;
  for (const spec::TensorSpec& tensor : spec::tensor_table(model.config())) {
    result.push_back({tensor.name, by_name.at(tensor.name), tensor.weight_decay});
  }
  return result;
}

}  // namespace

StepRunner::StepRunner(models::LanguageModel& model, const TrainOptions& options)
    : model_(model),
      schedule_{.peak = options.learning_rate,
                .decay = parse_decay(options.schedule),
                .warmup_steps = options.warmup_steps,
                .total_steps = options.steps,
                .final_ratio = options.final_ratio} {
  const at::ScalarType dtype = tensor::parse_dtype(options.dtype);
  // One micro-batch: the product that makes a bf16 gradient rounds to bf16 anyway. Several: they add up in fp32.
  const at::ScalarType gradient_dtype =
      dtype == at::kBFloat16 && options.accumulation == 1 ? at::kBFloat16 : at::kFloat;
  auto trained = options.lora_rank > 0
                     ? attach_lora(model, {.rank = options.lora_rank, .alpha = options.lora_alpha}, options.seed)
                     : all_parameters(model);
  parameters_ = std::make_unique<FlatParameters>(std::move(trained), dtype, gradient_dtype);
  optimizer_ = std::make_unique<FlatAdamw>(*parameters_, AdamwOptions{.beta1 = options.beta1,
                                                                      .beta2 = options.beta2,
                                                                      .eps = options.eps,
                                                                      .weight_decay = options.weight_decay,
                                                                      .clip_norm = options.clip_norm});
}

StepReport StepRunner::step(const std::vector<TrainBatch>& batches, std::int64_t step) {
  StepReport report{.loss = 0, .gradient_norm = 0, .learning_rate = schedule_.at(step), .tokens = 0, .applied = false};
  std::int64_t counted = 0;
  for (const TrainBatch& batch : batches) {
    counted += batch.counted;
    report.tokens += batch.tokens;
  }
  const double normalizer = static_cast<double>(std::max<std::int64_t>(1, counted));
  tensor::GradientSinks& sinks = parameters_->sinks();
  sinks.begin_step();
  {
    const tensor::GradientSinks::Guard guard(sinks);
    for (const TrainBatch& batch : batches) report.loss += forward_backward(batch, normalizer);
  }
  collect_stray_gradients();
  sinks.finish_step();
  if (!std::isfinite(report.loss)) return report;
  const StepResult result = optimizer_->step(report.learning_rate);
  report.gradient_norm = result.gradient_norm;
  report.applied = result.applied;
  return report;
}

double StepRunner::forward_backward(const TrainBatch& batch, double normalizer) {
  const at::Tensor loss = model_.loss(batch.inputs, batch.labels, normalizer);
  const auto value = loss.item<double>();
  loss.backward();
  return value;
}

std::uint64_t StepRunner::probe_peak_bytes(std::int64_t batch, std::int64_t tokens) {
  const at::AutoGradMode gradients(true);
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const at::Tensor state = generator.get_state();
  TrainBatch probe;
  probe.inputs.ids = at::arange(batch * tokens, at::kLong).remainder(model_.config().vocab_size).view({batch, tokens});
  probe.labels = probe.inputs.ids;
  base::release_freed_memory();
  const std::uint64_t before = base::resident_bytes();
  const bool resident = base::reset_peak_memory();
  const tensor::LiveBytes live;
  parameters_->sinks().begin_step();
  {
    const tensor::GradientSinks::Guard guard(parameters_->sinks());
    forward_backward(probe, static_cast<double>(batch * tokens));
  }
  collect_stray_gradients();
  generator.set_state(state);
  return resident ? base::peak_resident_bytes() : before + static_cast<std::uint64_t>(live.peak());
}

// Gradients of operators that know no slots arrive at the parameters themselves.
void StepRunner::collect_stray_gradients() {
  for (const NamedParameter& item : parameters_->parameters()) {
    at::Tensor parameter = item.parameter;
    if (!parameter.grad().defined()) continue;
    tensor::accumulate(*parameters_->sinks().find(parameter), parameter.grad());
    parameter.mutable_grad().reset();
  }
}

}  // namespace gantry::train
