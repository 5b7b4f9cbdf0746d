#include "gantry/kernels/cross_entropy/linear_cross_entropy.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/graph_task.h>

#include <cmath>

#include "gantry/kernels/common.h"
#include "gantry/kernels/cross_entropy/chunked_head.h"
#include "gantry/kernels/once_differentiable.h"

namespace gantry::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// What is kept for the backward pass are the gradients themselves.
class LossBackward {
 public:
  LossBackward(AutogradContext* ctx, const at::Tensor& incoming)
      : ctx_(ctx),
        saved_(ctx->get_saved_variables()),
        retained_(torch::autograd::get_current_graph_task_keep_graph()),
        factor_(incoming.item<double>()) {}

  tensor_list run() {
    if (ctx_->saved_data["in_slot"].toBool()) check_slots();
    tensor_list result{gradient(0), gradient(1)};
    if (result[0].defined()) result[0] = result[0].view(ctx_->saved_data["shape"].toIntVector());
    if (ctx_->saved_data["has_bias"].toBool()) result.push_back(gradient(2));
    result.resize(result.size() + 2);  // the problem and the needs
    return result;
  }

 private:
  void check_slots() {
    GANTRY_CHECK(factor_ == 1.0,
                 "linear_cross_entropy: with fused gradient accumulation backward() must start at the loss itself; "
                 "scale it through the normalizer option (got a gradient of {})",
                 factor_);
    GANTRY_CHECK(!ctx_->saved_data["delivered"].toBool(),
                 "linear_cross_entropy: with fused gradient accumulation the weight's gradient was added once, in the "
                 "forward pass; a second backward() cannot add it again, so run the loss again");
    ctx_->saved_data["delivered"] = true;
  }

  // What the caller gets is his own: a retained graph needs the kept one again.
  at::Tensor gradient(std::size_t i) {
    at::Tensor& kept = saved_[i];
    if (!kept.defined() || !ctx_->needs_input_grad(i)) return {};
    const auto type = static_cast<at::ScalarType>(ctx_->saved_data["type"].toInt());
    const at::Tensor scaled = retained_ ? kept * factor_ : (factor_ == 1.0 ? kept : kept.mul_(factor_));
    return scaled.to(type);
  }

  AutogradContext* ctx_;
  tensor_list saved_;
  const bool retained_;
  const double factor_;
};

struct LinearCrossEntropyFunction : torch::autograd::Function<LinearCrossEntropyFunction> {
  // The tensors are the problem's own, named once more for autograd. Biases: none or one, because autograd's argument
  // scan does not accept an undefined tensor.
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden, const at::Tensor& weight,
                            at::TensorList biases, const HeadProblem& problem, HeadNeeds needs) {
    HeadResult result = run_head(problem, needs);
    ctx->saved_data["shape"] = hidden.sizes();
    ctx->saved_data["type"] = static_cast<std::int64_t>(weight.scalar_type());
    ctx->saved_data["in_slot"] = result.in_slot;
    ctx->saved_data["delivered"] = false;
    ctx->saved_data["has_bias"] = !biases.empty();
    ctx->save_for_backward({result.dhidden, result.dweight, result.dbias});
    return result.losses.sum().mul_(problem.scale);
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
    return first_order("linear_cross_entropy", gradients,
                       [&](const tensor_list& incoming) { return LossBackward(ctx, incoming[0]).run(); });
  }
};

void check_options(const LinearCrossEntropyOptions& options) {
  GANTRY_CHECK(
      options.normalizer >= 0 && std::isfinite(options.normalizer),
      "linear_cross_entropy: the normalizer must be positive, or 0 for the number of labels that count; got {}",
      options.normalizer);
  GANTRY_CHECK(options.reduction == LossReduction::kMean || options.normalizer == 0,
               "linear_cross_entropy: reduction 'sum' takes no normalizer, got {}", options.normalizer);
  GANTRY_CHECK(options.label_smoothing >= 0 && options.label_smoothing <= 1,
               "linear_cross_entropy: label_smoothing must lie between 0 and 1, got {}", options.label_smoothing);
  GANTRY_CHECK(options.z_loss >= 0 && std::isfinite(options.z_loss),
               "linear_cross_entropy: z_loss must not be negative, got {}", options.z_loss);
  GANTRY_CHECK(options.chunk_bytes >= 0, "linear_cross_entropy: chunk_bytes must not be negative, got {}",
               options.chunk_bytes);
}

void check_parameter_type(const char* name, const at::Tensor& x, at::ScalarType type) {
  GANTRY_CHECK(x.scalar_type() == type, "linear_cross_entropy: the {} is {}, hidden is {}; convert one of them", name,
               c10::toString(x.scalar_type()), c10::toString(type));
}

void check_loss_inputs(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                       const at::Tensor& labels) {
  GANTRY_CHECK(weight.dim() == 2 && hidden.dim() >= 1 && hidden.size(-1) == weight.size(1),
               "linear_cross_entropy: hidden {} does not fit weight {}", c10::str(hidden.sizes()),
               c10::str(weight.sizes()));
  GANTRY_CHECK(weight.size(0) > 0 && weight.size(1) > 0, "linear_cross_entropy: weight {} is empty",
               c10::str(weight.sizes()));
  GANTRY_CHECK(!bias.defined() || (bias.dim() == 1 && bias.size(0) == weight.size(0)),
               "linear_cross_entropy: the bias does not fit weight {}", c10::str(weight.sizes()));
  const auto type = hidden.scalar_type();
  GANTRY_CHECK(type == at::kFloat || type == at::kBFloat16 || type == at::kHalf || type == at::kDouble,
               "linear_cross_entropy: expected fp32, bf16, fp16 or fp64, got {}", c10::toString(type));
  check_parameter_type("weight", weight, type);
  if (bias.defined()) check_parameter_type("bias", bias, type);
  GANTRY_CHECK(labels.scalar_type() == at::kLong && labels.numel() == row_count(hidden),
               "linear_cross_entropy: expected {} int64 labels, got {} of {}", row_count(hidden), labels.numel(),
               c10::toString(labels.scalar_type()));
}

HeadProblem make_problem(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                         const at::Tensor& labels, const LinearCrossEntropyOptions& options) {
  check_options(options);
  check_loss_inputs(hidden, weight, bias, labels);
  const at::NoGradGuard no_grad;
  HeadProblem problem;
  problem.hidden = hidden.reshape({-1, hidden.size(-1)}).contiguous();
  problem.weight = weight;
  problem.bias = bias.defined() ? bias.contiguous() : bias;
  problem.labels = labels.reshape({-1}).contiguous();
  problem.label_smoothing = options.label_smoothing;
  problem.z_loss = options.z_loss;
  problem.chunk_bytes = options.chunk_bytes;
  const at::Tensor counted = problem.labels.ge(0).logical_and_(problem.labels.ne(options.ignore_index));
  const at::Tensor positions = counted.nonzero().squeeze(1);
  if (positions.size(0) < problem.labels.size(0)) {
    problem.positions = positions;
    problem.labels = problem.labels.index_select(0, positions);
  }
  if (problem.labels.size(0) > 0) {
    const auto highest = problem.labels.max().item<std::int64_t>();
    GANTRY_CHECK(highest < weight.size(0), "linear_cross_entropy: label {} is outside a vocabulary of {}", highest,
                 weight.size(0));
  }
  return problem;
}

double scale_of(const LinearCrossEntropyOptions& options, const HeadProblem& problem) {
  if (options.reduction == LossReduction::kSum) return 1.0;
  if (options.normalizer != 0) return 1.0 / options.normalizer;
  return 1.0 / static_cast<double>(std::max<std::int64_t>(1, problem.labels.size(0)));
}

// Autocast would turn single products of the loop into another type.
c10::impl::ExcludeDispatchKeyGuard without_autocast() {
  return c10::impl::ExcludeDispatchKeyGuard(c10::autocast_dispatch_keyset);
}

}  // namespace

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                                const at::Tensor& labels, const LinearCrossEntropyOptions& options) {
  const auto guard = without_autocast();
  HeadProblem problem = make_problem(hidden, weight, bias, labels, options);
  problem.scale = scale_of(options, problem);
  // Inside forward() gradient mode is always off, so ask here: without it no slot may be written.
  const bool tracked = at::GradMode::is_enabled();
  const HeadNeeds needs{tracked && hidden.requires_grad(), tracked && weight.requires_grad(),
                        tracked && bias.defined() && bias.requires_grad()};
  const at::TensorList biases(&bias, bias.defined() ? 1 : 0);
  return LinearCrossEntropyFunction::apply(hidden, weight, biases, problem, needs);
}

at::Tensor linear_cross_entropy_losses(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                                       const at::Tensor& labels, const LinearCrossEntropyOptions& options) {
  const auto guard = without_autocast();
  const at::NoGradGuard no_grad;
  const HeadProblem problem = make_problem(hidden, weight, bias, labels, options);
  const at::Tensor losses = run_head(problem, {}).losses;
  if (!problem.positions.defined()) return losses;
  return at::zeros({problem.hidden.size(0)}, losses.options()).index_copy_(0, problem.positions, losses);
}

}  // namespace gantry::kernels
