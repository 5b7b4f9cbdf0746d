#include "gantry/train/flat_parameters.h"

#include <ATen/ATen.h>

#include "gantry/base/check.h"
#include "gantry/kernels/adamw/adamw.h"

namespace gantry::train {

FlatParameters::FlatParameters(std::vector<NamedParameter> parameters, at::ScalarType dtype,
                               at::ScalarType gradient_dtype)
    : parameters_(std::move(parameters)) {
  GANTRY_CHECK(!parameters_.empty(), "there is nothing to train: every parameter is frozen");
  GANTRY_CHECK(dtype == at::kFloat || dtype == at::kBFloat16, "training supports fp32 and bf16, not {}",
               c10::toString(dtype));
  const at::NoGradGuard no_grad;
  std::int64_t total = 0;
  for (const auto& item : parameters_) total += item.parameter.numel();
  const auto options = parameters_[0].parameter.options().requires_grad(false);
  values_ = at::empty({total}, options.dtype(dtype));
  if (dtype == at::kBFloat16) remainder_ = at::empty({total}, options.dtype(at::kShort));
  std::int64_t offset = 0;
  for (auto& item : parameters_) {
    at::Tensor& parameter = item.parameter;
    const std::int64_t n = parameter.numel();
    const at::Tensor master = parameter.detach().to(at::kFloat).reshape({-1}).contiguous();
    const at::Tensor place = values_.narrow(0, offset, n);
    if (remainder_.defined()) {
      const auto [weight, rest] = kernels::split_master(master);
      place.copy_(weight);
      remainder_.narrow(0, offset, n).copy_(rest);
    } else {
      place.copy_(master);
    }
    parameter.set_data(place.view(parameter.sizes()));
    parameter.set_requires_grad(true);
    if (!decay_ranges_.empty() && decay_ranges_.back().weight_decay == item.weight_decay) {
      decay_ranges_.back().end = offset + n;
    } else {
      decay_ranges_.push_back({offset, offset + n, item.weight_decay});
    }
    offset += n;
  }
  make_gradients(gradient_dtype);
}

void FlatParameters::make_gradients(at::ScalarType dtype) {
  sinks_ = {};
  gradients_.reset();  // before there are new ones
  gradients_ = at::empty({size()}, values_.options().dtype(dtype));
  std::int64_t offset = 0;
  for (const auto& item : parameters_) {
    const std::int64_t n = item.parameter.numel();
    sinks_.add(item.parameter, gradients_.narrow(0, offset, n).view(item.parameter.sizes()));
    offset += n;
  }
}

void FlatParameters::set_gradient_dtype(at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  if (gradients_.scalar_type() != dtype) make_gradients(dtype);
}

void FlatParameters::restore(const std::vector<at::Tensor>& values, const at::Tensor& remainder) {
  GANTRY_CHECK(values.size() == parameters_.size(), "checkpoint: {} tensors do not fit the model's {} trained ones",
               values.size(), parameters_.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const at::Tensor& expected = parameters_[i].parameter;
    GANTRY_CHECK(values[i].numel() == expected.numel() && values[i].scalar_type() == values_.scalar_type(),
                 "checkpoint: '{}' holds {} values of {}, expected {} of {}", parameters_[i].name, values[i].numel(),
                 c10::toString(values[i].scalar_type()), expected.numel(), c10::toString(values_.scalar_type()));
  }
  GANTRY_CHECK(remainder.defined() == remainder_.defined() &&
                   (!remainder.defined() || (remainder.numel() == size() && remainder.scalar_type() == at::kShort)),
               "checkpoint: the remainders of the bf16 weights do not fit the model's {} parameters", size());
  const at::NoGradGuard no_grad;
  std::int64_t offset = 0;
  for (const at::Tensor& value : values) {
    values_.narrow(0, offset, value.numel()).copy_(value.reshape({-1}));
    offset += value.numel();
  }
  if (remainder_.defined()) remainder_.copy_(remainder.reshape({-1}));
}

at::Tensor FlatParameters::masters() const {
  return remainder_.defined() ? kernels::join_master(values_, remainder_) : values_.clone();
}

}  // namespace gantry::train
