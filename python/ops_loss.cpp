// A linear layer and its cross entropy, a chunk of tokens at a time, so that [tokens, vocabulary] logits never exist.
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <tuple>

#include "gantry/base/check.h"
#include "gantry/kernels/cross_entropy/chunked_head.h"
#include "gantry/kernels/gemm/gemm.h"
#include "python/ops.h"

namespace gantry::python {
namespace {

using namespace kernels;
using Wanted = std::array<bool, 3>;

void check_shapes(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                  const at::Tensor& labels) {
  GANTRY_CHECK(hidden.dim() >= 1 && weight.dim() == 2 && hidden.size(-1) == weight.size(1) && weight.numel() > 0,
               "linear_cross_entropy: hidden {} does not fit weight {}", c10::str(hidden.sizes()),
               c10::str(weight.sizes()));
  GANTRY_CHECK(hidden.is_floating_point() && hidden.scalar_type() == weight.scalar_type() &&
                   (!bias.defined() || bias.scalar_type() == hidden.scalar_type()),
               "linear_cross_entropy: hidden is {} and weight is {}, expected one floating-point type, the bias's too",
               c10::toString(hidden.scalar_type()), c10::toString(weight.scalar_type()));
  GANTRY_CHECK(!bias.defined() || (bias.dim() == 1 && bias.size(0) == weight.size(0)),
               "linear_cross_entropy: the bias does not fit weight {}", c10::str(weight.sizes()));
  GANTRY_CHECK(labels.scalar_type() == at::kLong && labels.numel() * hidden.size(-1) == hidden.numel(),
               "linear_cross_entropy: expected {} int64 labels, got {} {}", hidden.numel() / hidden.size(-1),
               c10::toString(labels.scalar_type()), c10::str(labels.sizes()));
}

HeadProblem make_problem(const at::Tensor& hidden, const at::Tensor& weight, const OptionalTensor& bias,
                         const at::Tensor& labels, std::int64_t ignore_index, double smoothing) {
  check_shapes(hidden, weight, value_or_undefined(bias), labels);
  GANTRY_CHECK(smoothing >= 0 && smoothing <= 1, "linear_cross_entropy: label_smoothing is {}, expected 0 to 1",
               smoothing);
  HeadProblem problem;
  problem.hidden = hidden.reshape({-1, hidden.size(-1)}).contiguous();
  problem.weight = weight;
  if (bias.has_value()) problem.bias = bias->contiguous();
  problem.labels = labels.reshape({-1}).contiguous();
  problem.label_smoothing = smoothing;
  const at::Tensor positions = problem.labels.ne(ignore_index).nonzero().squeeze(1);
  if (positions.size(0) < problem.labels.size(0)) {
    problem.positions = positions;
    problem.labels = problem.labels.index_select(0, positions);
  }
  const at::Tensor wrong = problem.labels.lt(0).logical_or_(problem.labels.ge(weight.size(0)));
  GANTRY_CHECK(!wrong.any().item<bool>(), "linear_cross_entropy: label {} is outside a vocabulary of {}",
               problem.labels.masked_select(wrong)[0].item<std::int64_t>(), weight.size(0));
  return problem;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> linear_cross_entropy_op(
    const at::Tensor& hidden, const at::Tensor& weight, const OptionalTensor& bias, const at::Tensor& labels,
    std::int64_t ignore_index, double smoothing, bool mean, Wanted wanted) {
  const BelowAutograd below;
  HeadProblem problem = make_problem(hidden, weight, bias, labels, ignore_index, smoothing);
  // As in torch, the mean over no label is NaN, and its gradients are zero.
  const auto count = static_cast<double>(mean ? problem.labels.size(0) : 1);
  problem.scale = count > 0 ? 1.0 / count : 1.0;
  const HeadResult result =
      run_head(problem, {.hidden = wanted[0], .weight = wanted[1], .bias = wanted[2] && problem.bias.defined()});
  GANTRY_CHECK(!result.in_slot, "linear_cross_entropy: not inside a step of gantry.Trainer");
  const at::Tensor dhidden = result.dhidden.defined() ? result.dhidden.view(hidden.sizes()) : result.dhidden;
  const at::Tensor none = absent(hidden);
  return {result.losses.sum().div_(count), or_absent(dhidden, none), or_absent(result.dweight, none),
          or_absent(result.dbias, none)};
}

at::Tensor losses_op(const at::Tensor& hidden, const at::Tensor& weight, const OptionalTensor& bias,
                     const at::Tensor& labels, std::int64_t ignore_index, double smoothing) {
  const BelowAutograd below;
  const HeadProblem problem = make_problem(hidden, weight, bias, labels, ignore_index, smoothing);
  at::Tensor losses = run_head(problem, {}).losses;
  if (problem.positions.defined()) {
    losses = at::zeros({problem.hidden.size(0)}, losses.options()).index_copy_(0, problem.positions, losses);
  }
  return losses.view(labels.sizes());
}

// Sums over chunks of tokens, in fp32 or fp64.
struct LossGradients {
  at::Tensor hidden, weight, bias;
};

// The gradients of losses that each have a factor of their own, logits made again.
LossGradients factored_gradients(const HeadProblem& problem, const at::Tensor& factors, Wanted wanted) {
  const at::Tensor& weight = problem.weight;
  const auto type = weight.scalar_type(), wide = type == at::kDouble ? at::kDouble : at::kFloat;
  const auto options = weight.options().dtype(wide);
  LossGradients sums{.hidden = wanted[0] ? at::zeros_like(problem.hidden) : at::Tensor(),
                     .weight = wanted[1] ? at::zeros(weight.sizes(), options) : at::Tensor(),
                     .bias = wanted[2] ? at::zeros({weight.size(0)}, options) : at::Tensor()};
  const std::int64_t counted = problem.labels.size(0), vocab = weight.size(0);
  const std::int64_t step = linear_cross_entropy_chunk_rows(counted, vocab, type);
  const at::Tensor positions =
      problem.positions.defined() ? problem.positions : at::arange(counted, problem.labels.options());
  for (std::int64_t first = 0; first < counted; first += step) {
    const at::Tensor index = positions.narrow(0, first, std::min(step, counted - first));
    const at::Tensor part = problem.hidden.index_select(0, index);
    const at::Tensor label = problem.labels.narrow(0, first, index.size(0)).unsqueeze(1);
    at::Tensor slope = at::softmax(matrix_product(part, weight.t(), problem.bias), 1, wide);
    slope.sub_(problem.label_smoothing / static_cast<double>(vocab));
    slope.scatter_add_(1, label, at::full_like(label, problem.label_smoothing - 1, slope.options()));
    slope.mul_(factors.index_select(0, index).to(wide).unsqueeze(1));
    const at::Tensor dlogits = slope.to(type);
    if (wanted[0]) sums.hidden.index_copy_(0, index, matrix_product(dlogits, weight));
    if (wanted[1]) sums.weight.add_(matrix_product(dlogits.t(), part));
    if (wanted[2]) sums.bias.add_(slope.sum(0));
  }
  return sums;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> losses_backward_op(const at::Tensor& dlosses, const at::Tensor& hidden,
                                                                  const at::Tensor& weight, const OptionalTensor& bias,
                                                                  const at::Tensor& labels, std::int64_t ignore_index,
                                                                  double smoothing, Wanted wanted) {
  const BelowAutograd below;
  const HeadProblem problem = make_problem(hidden, weight, bias, labels, ignore_index, smoothing);
  GANTRY_CHECK(dlosses.numel() == problem.hidden.size(0),
               "linear_cross_entropy: {} gradients of losses do not fit {} tokens", dlosses.numel(),
               problem.hidden.size(0));
  wanted[2] = wanted[2] && problem.bias.defined();
  const LossGradients sums = factored_gradients(problem, dlosses.reshape({-1}), wanted);
  const auto finished = [&](const at::Tensor& x) { return x.defined() ? x.to(hidden.scalar_type()) : absent(hidden); };
  return {wanted[0] ? sums.hidden.view(hidden.sizes()) : absent(hidden), finished(sums.weight), finished(sums.bias)};
}

at::Tensor scaled_gradient_op(const at::Tensor& dloss, const at::Tensor& part) {
  const BelowAutograd below;
  return part.mul(dloss.item<double>());
}

}  // namespace
}  // namespace gantry::python

TORCH_LIBRARY_IMPL(gantry, CPU, library) {
  library.impl("linear_cross_entropy", gantry::python::linear_cross_entropy_op);
  library.impl("linear_cross_entropy_losses", gantry::python::losses_op);
  library.impl("linear_cross_entropy_losses_backward", gantry::python::losses_backward_op);
  library.impl("scaled_gradient", gantry::python::scaled_gradient_op);
}
