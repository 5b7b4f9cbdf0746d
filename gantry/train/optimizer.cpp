#include "gantry/train/optimizer.h"

#include <ATen/ATen.h>

#include <cmath>

#include "gantry/base/check.h"
#include "gantry/kernels/adamw/adamw.h"

namespace gantry::train {

FlatAdamw::FlatAdamw(FlatParameters& parameters, const AdamwOptions& options)
    : parameters_(parameters), options_(options) {
  first_ = at::zeros({parameters.size()}, parameters.values().options().dtype(at::kFloat));
  second_ = at::zeros_like(first_);
}

StepResult FlatAdamw::step(double learning_rate) {
  const double norm = std::sqrt(kernels::sum_of_squares(parameters_.gradients()));
  if (!std::isfinite(norm)) return {norm, false};
  ++steps_;
  kernels::AdamwParameters update{.learning_rate = learning_rate,
                                  .beta1 = options_.beta1,
                                  .beta2 = options_.beta2,
                                  .eps = options_.eps,
                                  .step = steps_};
  if (options_.clip_norm > 0 && norm > options_.clip_norm) update.gradient_scale = options_.clip_norm / norm;
  for (const DecayRange& range : parameters_.decay_ranges()) {
    update.weight_decay = range.weight_decay ? options_.weight_decay : 0.0;
    const auto part = [&](const at::Tensor& x) { return x.narrow(0, range.begin, range.end - range.begin); };
    if (parameters_.remainder().defined()) {
      kernels::adamw_split_(part(parameters_.values()), part(parameters_.remainder()), part(parameters_.gradients()),
                            part(first_), part(second_), update);
    } else {
      kernels::adamw_(part(parameters_.values()), part(parameters_.gradients()), part(first_), part(second_), update);
    }
  }
  return {norm, true};
}

void FlatAdamw::restore(const at::Tensor& first, const at::Tensor& second, std::int64_t steps) {
  GANTRY_CHECK(first.sizes() == first_.sizes() && second.sizes() == second_.sizes() && steps >= 0,
               "checkpoint: optimiser state of {} elements does not fit {} parameters", first.numel(), first_.numel());
  first_.copy_(first);
  second_.copy_(second);
  steps_ = steps;
}

}  // namespace gantry::train
