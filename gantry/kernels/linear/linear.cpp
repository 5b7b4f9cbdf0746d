#include "gantry/kernels/linear/linear.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "gantry/kernels/common.h"
#include "gantry/kernels/gemm/gemm.h"
#include "gantry/kernels/linear/few_rows.h"
#include "gantry/kernels/once_differentiable.h"
#include "gantry/tensor/gradient_sink.h"

namespace gantry::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

bool requires_grad(const at::Tensor& x) { return x.defined() && x.requires_grad(); }

bool any_requires_grad(const at::Tensor& x, const std::vector<at::Tensor>& weights,
                       const std::vector<at::Tensor>& biases) {
  if (!at::GradMode::is_enabled()) return false;
  if (requires_grad(x)) return true;
  for (const auto& weight : weights) {
    if (requires_grad(weight)) return true;
  }
  for (const auto& bias : biases) {
    if (requires_grad(bias)) return true;
  }
  return false;
}

// ---- any number of rows

at::Tensor product(const at::Tensor& x2, const at::Tensor& weight, const at::Tensor& bias, WeightLayout layout) {
  if (layout == WeightLayout::kInOut) return matrix_product(x2, weight, bias);
  if (gemm_applies(x2, weight.t())) return matrix_product(x2, weight.t(), bias);
  return at::linear(x2, weight, bias.defined() ? std::optional(bias) : std::nullopt);
}

at::Tensor fused_product(const at::Tensor& x2, const std::vector<at::Tensor>& weights,
                         const std::vector<at::Tensor>& biases, WeightLayout layout) {
  if (weights.size() == 1) return product(x2, weights[0], biases.empty() ? at::Tensor() : biases[0], layout);
  const at::Tensor bias = biases.empty() ? at::Tensor() : at::cat(biases);
  if (const at::Tensor joint = view_adjacent(weights); joint.defined()) return product(x2, joint, bias, layout);
  std::int64_t total = 0;
  for (const auto& weight : weights) total += weight.size(0);
  at::Tensor y = at::empty({x2.size(0), total}, x2.options());
  std::int64_t first = 0;
  for (const auto& weight : weights) {
    y.narrow(1, first, weight.size(0)).copy_(matrix_product(x2, weight.t()));
    first += weight.size(0);
  }
  return bias.defined() ? y.add_(bias) : y;
}

// The weight gradients of one backward pass: into their slots where a trainer registered them, else returned.
class WeightGradients {
 public:
  WeightGradients(const at::Tensor& x2, const at::Tensor& dy2, WeightLayout layout)
      : x2_(x2), dy2_(dy2), layout_(layout) {}

  tensor_list weights(const std::vector<at::Tensor>& weights, const std::vector<bool>& needed) {
    tensor_list result(weights.size());
    if (joint_slots(weights, needed)) return result;
    std::int64_t first = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const std::int64_t n = weights[i].size(layout_ == WeightLayout::kOutIn ? 0 : 1);
      if (needed[i]) result[i] = one(weights[i], dy2_.narrow(1, first, n));
      first += n;
    }
    return result;
  }

 private:
  at::Tensor one(const at::Tensor& weight, const at::Tensor& dy) {
    const bool out_in = layout_ == WeightLayout::kOutIn;
    const at::Tensor a = out_in ? dy.t() : x2_.t(), b = out_in ? x2_ : dy;
    auto* sinks = tensor::GradientSinks::active();
    auto* slot = sinks == nullptr ? nullptr : sinks->find(weight);
    if (slot == nullptr) return matrix_product(a, b);
    add_matrix_product(*slot, a, b);
    return {};
  }

  bool joint_slots(const std::vector<at::Tensor>& weights, const std::vector<bool>& needed) {
    auto* sinks = tensor::GradientSinks::active();
    if (sinks == nullptr || weights.size() < 2) return false;
    std::vector<at::Tensor> places;
    std::vector<tensor::GradientSlot*> slots;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      auto* slot = needed[i] ? sinks->find(weights[i]) : nullptr;
      if (slot == nullptr || (i > 0 && slot->written != slots[0]->written)) return false;
      slots.push_back(slot);
      places.push_back(slot->gradient);
    }
    tensor::GradientSlot joint{view_adjacent(places), slots[0]->written};
    if (!joint.gradient.defined()) return false;
    add_matrix_product(joint, dy2_.t(), x2_);
    for (auto* slot : slots) slot->written = true;
    return true;
  }

  at::Tensor x2_, dy2_;
  WeightLayout layout_;
};

at::Tensor bias_gradient(const at::Tensor& bias, const at::Tensor& dy) {
  const at::Tensor gradient = dy.sum(0, false, dy.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  auto* sinks = tensor::GradientSinks::active();
  auto* slot = sinks == nullptr ? nullptr : sinks->find(bias);
  if (slot == nullptr) return gradient.to(bias.scalar_type());
  tensor::accumulate(*slot, gradient);
  return {};
}

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  // Tensor lists, not vectors: autograd's argument scan sees only those as inputs.
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, at::TensorList weights, at::TensorList biases,
                            std::int64_t layout, std::int64_t keep) {
    const at::Tensor x2 = x.reshape({-1, x.size(-1)});
    at::Tensor y = fused_product(x2, weights.vec(), biases.vec(), static_cast<WeightLayout>(layout));
    tensor_list saved(2);
    if (std::any_of(weights.begin(), weights.end(), requires_grad)) {
      saved = keep_input(x, x2, static_cast<KeepInput>(keep));
    }
    saved.insert(saved.end(), weights.begin(), weights.end());
    saved.insert(saved.end(), biases.begin(), biases.end());
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["weights"] = static_cast<std::int64_t>(weights.size());
    ctx->saved_data["layout"] = layout;
    ctx->saved_data["keep"] = keep;
    ctx->saved_data["copied"] = is_copy(x, x2);
    auto shape = x.sizes().vec();
    shape.back() = y.size(1);
    return at::_unsafe_view(y, shape);  // no view to autograd, so that the next operator may work in place
  }

  static tensor_list backward(AutogradContext* ctx, const tensor_list& gradients) {
    const bool packed = static_cast<KeepInput>(ctx->saved_data["keep"].toInt()) == KeepInput::kInt8;
    // Neither a copy of x nor a slot is part of a graph.
    const bool linked = !ctx->saved_data["copied"].toBool() && tensor::GradientSinks::active() == nullptr;
    if (at::GradMode::is_enabled() && linked && !packed) {
      return differentiate_by_operators(ctx, gradients[0]);
    }
    return first_order(packed ? "linear_int8_input" : "linear", gradients,
                       [&](const auto& dy) { return differentiate(ctx, dy); });
  }

  /// The same under create_graph, so that the gradients have gradients.
  static tensor_list differentiate_by_operators(AutogradContext* ctx, const at::Tensor& dy) {
    const auto saved = ctx->get_saved_variables();
    const auto count = static_cast<std::size_t>(ctx->saved_data["weights"].toInt());
    const bool out_in = static_cast<WeightLayout>(ctx->saved_data["layout"].toInt()) == WeightLayout::kOutIn;
    const at::Tensor dy2 = dy.reshape({-1, dy.size(-1)});
    tensor_list result(saved.size() + 1);
    if (ctx->needs_input_grad(0)) {
      const at::Tensor joint = at::cat(tensor_list(saved.begin() + 2, saved.begin() + 2 + count), out_in ? 0 : 1);
      result[0] = at::matmul(dy, out_in ? joint : joint.t());
    }
    std::int64_t first = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const at::Tensor& weight = saved[2 + i];
      const at::Tensor part = dy2.narrow(1, first, weight.size(out_in ? 0 : 1));
      first += part.size(1);
      if (ctx->needs_input_grad(1 + i)) {
        const at::Tensor x2 = saved[0].reshape({-1, weight.size(out_in ? 1 : 0)});
        result[1 + i] = out_in ? at::mm(part.t(), x2) : at::mm(x2.t(), part);
      }
      if (2 + count + i < saved.size() && ctx->needs_input_grad(1 + count + i)) result[1 + count + i] = part.sum(0);
    }
    return result;
  }

  static tensor_list differentiate(AutogradContext* ctx, const tensor_list& gradients) {
    const auto saved = ctx->get_saved_variables();
    const auto count = static_cast<std::size_t>(ctx->saved_data["weights"].toInt());
    const auto layout = static_cast<WeightLayout>(ctx->saved_data["layout"].toInt());
    const std::vector<at::Tensor> weights(saved.begin() + 2, saved.begin() + 2 + count);
    const std::vector<at::Tensor> biases(saved.begin() + 2 + count, saved.end());
    const at::Tensor dy2 = gradients[0].reshape({-1, gradients[0].size(-1)});
    const std::int64_t in = weights[0].size(layout == WeightLayout::kOutIn ? 1 : 0);
    std::vector<bool> needed;
    for (std::size_t i = 0; i < count; ++i) needed.push_back(ctx->needs_input_grad(1 + i));
    tensor_list result{at::Tensor()};
    if (ctx->needs_input_grad(0)) {
      auto shape = gradients[0].sizes().vec();
      shape.back() = in;
      result[0] = input_gradient(dy2, weights, layout).view(shape);
    }
    at::Tensor x2 = saved[0];
    if (saved[1].defined()) {
      x2 = unstash({saved[0], saved[1], {dy2.size(0), in}, dy2.scalar_type()});
    } else if (x2.defined()) {
      x2 = x2.reshape({dy2.size(0), in});
    }
    for (auto& gradient : WeightGradients(x2, dy2, layout).weights(weights, needed)) result.push_back(gradient);
    std::int64_t first = 0;
    for (std::size_t i = 0; i < biases.size(); ++i) {
      const at::Tensor part = dy2.narrow(1, first, biases[i].size(0));
      result.push_back(ctx->needs_input_grad(1 + count + i) ? bias_gradient(biases[i], part) : at::Tensor());
      first += biases[i].size(0);
    }
    result.resize(result.size() + 2);
    return result;
  }

  static tensor_list keep_input(const at::Tensor& x, const at::Tensor& x2, KeepInput keep) {
    if (keep == KeepInput::kInt8) {
      const Stashed packed = stash(x2);
      return {packed.values, packed.scales};
    }
    return {is_copy(x, x2) ? x2 : x, at::Tensor()};
  }

  static bool is_copy(const at::Tensor& x, const at::Tensor& x2) {
    return x.storage().unsafeGetStorageImpl() != x2.storage().unsafeGetStorageImpl();
  }

  static at::Tensor input_gradient(const at::Tensor& dy2, const std::vector<at::Tensor>& weights, WeightLayout layout) {
    if (layout == WeightLayout::kInOut) return matrix_product(dy2, weights[0].t());
    if (weights.size() == 1) return matrix_product(dy2, weights[0]);
    if (const at::Tensor joint = view_adjacent(weights); joint.defined()) return matrix_product(dy2, joint);
    at::Tensor dx;
    std::int64_t first = 0;
    for (const auto& weight : weights) {
      const at::Tensor part = dy2.narrow(1, first, weight.size(0));
      dx = dx.defined() ? dx.addmm_(part, weight) : matrix_product(part, weight);
      first += weight.size(0);
    }
    return dx;
  }
};

void check_linear_inputs(const at::Tensor& x, const std::vector<at::Tensor>& weights,
                         const std::vector<at::Tensor>& biases, WeightLayout layout) {
  GANTRY_CHECK(x.dim() >= 1, "linear: expected an input of at least one axis, got a scalar");
  GANTRY_CHECK(biases.empty() || biases.size() == weights.size(), "linear: {} biases for {} weights", biases.size(),
               weights.size());
  const int in_axis = layout == WeightLayout::kOutIn ? 1 : 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    GANTRY_CHECK(weights[i].dim() == 2 && weights[i].size(in_axis) == x.size(-1),
                 "linear: input of {} features does not fit weight {}", x.size(-1), c10::str(weights[i].sizes()));
    GANTRY_CHECK(weights[i].scalar_type() == x.scalar_type(), "linear: input is {}, weight is {}",
                 c10::toString(x.scalar_type()), c10::toString(weights[i].scalar_type()));
    if (biases.empty()) continue;
    GANTRY_CHECK(biases[i].dim() == 1 && biases[i].size(0) == weights[i].size(1 - in_axis) &&
                     biases[i].scalar_type() == x.scalar_type(),
                 "linear: bias {} {} does not fit weight {} {}", c10::toString(biases[i].scalar_type()),
                 c10::str(biases[i].sizes()), c10::toString(x.scalar_type()), c10::str(weights[i].sizes()));
  }
}

std::vector<at::Tensor> one_or_none(const at::Tensor& bias) {
  return bias.defined() ? std::vector{bias} : std::vector<at::Tensor>{};
}

at::Tensor apply(const at::Tensor& x, const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& biases,
                 WeightLayout layout, KeepInput keep) {
  check_linear_inputs(x, weights, biases, layout);
  if (any_requires_grad(x, weights, biases)) {
    return LinearFunction::apply(x, at::TensorList(weights), at::TensorList(biases), static_cast<std::int64_t>(layout),
                                 static_cast<std::int64_t>(keep));
  }
  if (layout == WeightLayout::kOutIn && few_rows_apply(x, weights, biases)) {
    return few_rows_linear(x, weights, biases);
  };
  const at::Tensor y = fused_product(x.reshape({-1, x.size(-1)}), weights, biases, layout);
  auto shape = x.sizes().vec();
  shape.back() = y.size(1);
  return y.view(shape);
}

}  // namespace

at::Tensor view_adjacent(const std::vector<at::Tensor>& parts) {
  if (parts.empty() || parts.front().dim() != 2) return {};
  const at::Tensor& first = parts.front();
  std::int64_t rows = 0, offset = first.storage_offset();
  for (const auto& part : parts) {
    if (!part.is_contiguous() || part.scalar_type() != first.scalar_type() ||
        part.storage().unsafeGetStorageImpl() != first.storage().unsafeGetStorageImpl() ||
        part.storage_offset() != offset || part.dim() != first.dim() || part.size(-1) != first.size(-1)) {
      return {};
    }
    rows += part.size(0);
    offset += part.numel();
  }
  const at::NoGradGuard no_grad;
  return first.detach().as_strided({rows, first.size(-1)}, {first.size(-1), 1}, first.storage_offset());
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, WeightLayout layout) {
  return apply(x, {weight}, one_or_none(bias), layout, KeepInput::kTensor);
}

at::Tensor fused_linear(const at::Tensor& x, const std::vector<at::Tensor>& weights,
                        const std::vector<at::Tensor>& biases) {
  GANTRY_CHECK(!weights.empty(), "fused_linear: no weights given");
  return apply(x, weights, biases, WeightLayout::kOutIn, KeepInput::kTensor);
}

at::Tensor linear_int8_input(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             WeightLayout layout) {
  return apply(x, {weight}, one_or_none(bias), layout, KeepInput::kInt8);
}

at::Tensor fused_linear_int8_input(const at::Tensor& x, const std::vector<at::Tensor>& weights,
                                   const std::vector<at::Tensor>& biases) {
  GANTRY_CHECK(!weights.empty(), "fused_linear_int8_input: no weights given");
  return apply(x, weights, biases, WeightLayout::kOutIn, KeepInput::kInt8);
}

}  // namespace gantry::kernels
