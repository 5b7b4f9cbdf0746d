#include "gantry/train/step.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>

#include "gantry/base/process.h"
#include "gantry/base/timer.h"
#include "gantry/spec/tensor_table.h"
#include "gantry/tensor/dtype.h"
#include "gantry/tensor/live_bytes.h"
#include "gantry/train/lora.h"
#include "gantry/train/out_of_memory.h"

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

// One micro-batch: the product that makes a bf16 gradient rounds to bf16 anyway. Several: they add up in fp32.
at::ScalarType gradient_dtype(at::ScalarType dtype, bool several) {
  return dtype == at::kBFloat16 && !several ? at::kBFloat16 : at::kFloat;
}

// Puts torch's generator back.
class KeptGenerator {
 public:
  KeptGenerator() : generator_(at::detail::getDefaultCPUGenerator()), state_(generator_.get_state()) {}
  ~KeptGenerator() { generator_.set_state(state_); }
  KeptGenerator(const KeptGenerator&) = delete;
  KeptGenerator& operator=(const KeptGenerator&) = delete;

 private:
  at::Generator generator_;
  at::Tensor state_;
};

// Leaves no gradient at a parameter itself, whatever ends a probe.
class StrayGradients {
 public:
  explicit StrayGradients(const FlatParameters& parameters) : parameters_(parameters) {}
  ~StrayGradients() {
    for (const NamedParameter& item : parameters_.parameters()) at::Tensor(item.parameter).mutable_grad().reset();
  }
  StrayGradients(const StrayGradients&) = delete;
  StrayGradients& operator=(const StrayGradients&) = delete;

 private:
  const FlatParameters& parameters_;
};

}  // namespace

StepRunner::StepRunner(models::LanguageModel& model, const TrainOptions& options)
    : model_(model),
      schedule_{.peak = options.learning_rate,
                .decay = parse_decay(options.schedule),
                .warmup_steps = options.warmup_steps,
                .total_steps = options.steps,
                .final_ratio = options.final_ratio},
      several_(options.accumulation > 1) {
  const at::ScalarType dtype = tensor::parse_dtype(options.dtype);
  auto trained = options.lora_rank > 0
                     ? attach_lora(model, {.rank = options.lora_rank, .alpha = options.lora_alpha}, options.seed)
                     : all_parameters(model);
  parameters_ = std::make_unique<FlatParameters>(std::move(trained), dtype, gradient_dtype(dtype, several_));
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

void StepRunner::set_several(bool several) {
  several_ = several;
  parameters_->set_gradient_dtype(gradient_dtype(parameters_->values().scalar_type(), several));
}

TrainBatch StepRunner::fullest_batch(std::int64_t rows, std::int64_t tokens) const {
  TrainBatch batch;
  batch.inputs.ids = at::arange(rows * tokens, at::kLong).remainder(model_.config().vocab_size).view({rows, tokens});
  batch.labels = batch.inputs.ids;
  batch.counted = batch.tokens = rows * tokens;
  return batch;
}

void StepRunner::probe(const TrainBatch& batch) {
  const at::AutoGradMode gradients(true);
  const KeptGenerator generator;
  const StrayGradients stray(*parameters_);
  if (!several_) parameters_->sinks().begin_step();
  {
    const tensor::GradientSinks::Guard guard(parameters_->sinks());
    forward_backward(batch, static_cast<double>(std::max<std::int64_t>(1, batch.counted)));
  }
  collect_stray_gradients();
}

std::optional<std::uint64_t> StepRunner::probe_peak_bytes(const TrainBatch& batch) {
  return unless_out_of_memory([&] {
    base::release_freed_memory();
    const std::uint64_t before = base::resident_bytes();
    const bool resident = base::reset_peak_memory();
    const tensor::LiveBytes live;
    probe(batch);
    return resident ? base::peak_resident_bytes() : before + static_cast<std::uint64_t>(live.peak());
  });
}

std::optional<double> StepRunner::probe_seconds(const TrainBatch& batch) {
  return unless_out_of_memory([&] {
    const base::Timer timer;
    probe(batch);
    return timer.seconds();
  });
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
