#pragma once
// Helpers of the operators' tests: seeded inputs, and comparison of values and gradients with the same operator in
// fp64.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <functional>
#include <string>
#include <vector>

#include "gantry/base/check.h"
#include "gantry/tensor/gradient_sink.h"
#include "gantry/tensor/live_bytes.h"
#include "tests/test_support.h"

namespace gantry::kernels::testing {

using torch::autograd::variable_list;
using Op = std::function<variable_list(const variable_list&)>;

/// fp64 normal numbers that bf16 holds exactly, so that every type computes on the same inputs.
inline at::Tensor normal(std::vector<std::int64_t> shape, std::uint64_t seed, double deviation = 1, double mean = 0) {
  auto generator = at::detail::createCPUGenerator(seed);
  return (at::randn(shape, generator, at::kDouble) * deviation + mean).to(at::kBFloat16).to(at::kDouble);
}

/// Frobenius norm of the difference over that of `expected`; infinity where NaN or shapes disagree.
inline double error_of(const at::Tensor& actual, const at::Tensor& expected) {
  if (!actual.defined() || !expected.defined() || actual.sizes() != expected.sizes()) return INFINITY;
  const double difference = (actual.to(at::kDouble) - expected).norm().item<double>();
  const double error = difference / std::max(1e-300, expected.norm().item<double>());
  return difference == 0 ? 0.0 : (std::isnan(error) ? INFINITY : error);
}

/// Copies in another type that require gradients.
inline variable_list leaves_of(const variable_list& tensors, at::ScalarType type) {
  variable_list result;
  for (const auto& tensor : tensors) result.push_back(tensor.to(type, false, true).requires_grad_());
  return result;
}

struct Traced {
  variable_list outputs, gradients;
};

/// Runs `op` on copies of the inputs in `type`; gradients of sum(outputs * weights) with respect to every input.
inline Traced run(const Op& op, const variable_list& inputs, at::ScalarType type, const variable_list& weights) {
  const variable_list leaves = leaves_of(inputs, type);
  variable_list heads;
  Traced result;
  result.outputs = op(leaves);
  for (std::size_t i = 0; i < weights.size(); ++i) heads.push_back(weights[i].to(result.outputs[i].scalar_type()));
  result.gradients = torch::autograd::grad(result.outputs, leaves, heads);
  return result;
}

/// Random output gradients for what `op` returns.
inline variable_list output_weights(const Op& op, const variable_list& inputs) {
  variable_list weights;
  const at::NoGradGuard no_grad;
  for (const auto& output : op(inputs)) weights.push_back(normal(output.sizes().vec(), 99 + weights.size()));
  return weights;
}

inline void expect_errors(const Traced& actual, const Traced& expected,
                          const std::function<double(std::size_t)>& bound) {
  std::size_t index = 0;
  for (std::size_t i = 0; i < expected.outputs.size(); ++i, ++index) {
    EXPECT_LE(error_of(actual.outputs[i], expected.outputs[i]), bound(index)) << "output " << i;
  }
  for (std::size_t i = 0; i < expected.gradients.size(); ++i, ++index) {
    EXPECT_LE(error_of(actual.gradients[i], expected.gradients[i]), bound(index)) << "gradient " << i;
  }
}

/// `op` in fp32 stays within 1e-5 of `reference` in fp64, and in bf16 within `factor` times the error of `reference` in
/// bf16 (two roundings where that is exact).
inline void expect_matches(const Op& op, const Op& reference, const variable_list& inputs, double factor = 1.5) {
  const variable_list weights = output_weights(reference, inputs);
  const Traced exact = run(reference, inputs, at::kDouble, weights);
  {
    SCOPED_TRACE("fp32");
    expect_errors(run(op, inputs, at::kFloat, weights), exact, [](std::size_t) { return 1e-5; });
  }
  SCOPED_TRACE("bf16");
  const Traced eager = run(reference, inputs, at::kBFloat16, weights);
  std::vector<double> errors;
  for (std::size_t i = 0; i < eager.outputs.size(); ++i) errors.push_back(error_of(eager.outputs[i], exact.outputs[i]));
  for (std::size_t i = 0; i < inputs.size(); ++i) errors.push_back(error_of(eager.gradients[i], exact.gradients[i]));
  expect_errors(run(op, inputs, at::kBFloat16, weights), exact,
                [&](std::size_t i) { return std::max(factor * errors[i], 0x1p-8); });
}

using tests::input_error;

#define EXPECT_MESSAGE(statement, part)                                                              \
  do {                                                                                               \
    const std::string message = ::gantry::kernels::testing::input_error([&] { (void)(statement); }); \
    EXPECT_NE(message.find(part), std::string::npos) << message;                                     \
  } while (false)

/// Bytes that `body` leaves alive beside its result.
inline std::int64_t kept_beside(const std::function<at::Tensor()>& body) {
  const tensor::LiveBytes live;
  const at::Tensor result = body();
  return live.now() - static_cast<std::int64_t>(result.numel() * result.element_size());
}

/// Slots full of NaN for some parameters: whoever forgets to overwrite the first time is found out.
class Sinks {
 public:
  explicit Sinks(const variable_list& parameters, at::ScalarType type = at::kFloat) {
    for (const auto& parameter : parameters) {
      places_.push_back(at::full_like(parameter.detach(), NAN, parameter.options().dtype(type)));
      registry_.add(parameter, places_.back());
    }
    registry_.begin_step();
  }
  tensor::GradientSinks& registry() { return registry_; }
  const at::Tensor& operator[](std::size_t i) const { return places_[i]; }

 private:
  tensor::GradientSinks registry_;
  variable_list places_;
};

/// The message of whatever `function` throws, torch's own errors included.
template <class Function>
std::string error_text(Function function) {
  try {
    function();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace gantry::kernels::testing
