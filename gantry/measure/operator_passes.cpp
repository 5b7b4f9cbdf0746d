#include "gantry/measure/operator_passes.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/cuda.h>

#include <algorithm>
#include <memory>

#include "gantry/base/check.h"
#include "gantry/base/timer.h"
#include "gantry/kernels/attention/attention.h"
#include "gantry/kernels/common.h"
#include "gantry/kernels/cross_entropy/chunked_head.h"
#include "gantry/kernels/cross_entropy/linear_cross_entropy.h"
#include "gantry/kernels/embedding/embedding.h"
#include "gantry/kernels/layer_norm/layer_norm.h"
#include "gantry/kernels/linear/linear.h"
#include "gantry/kernels/rms_norm/rms_norm.h"
#include "gantry/kernels/rope/rope.h"
#include "gantry/kernels/swiglu/swiglu.h"
#include "gantry/layers/attention.h"
#include "gantry/models/activation.h"
#include "gantry/tensor/gradient_sink.h"

namespace gantry::measure {
namespace {

using Sizes = std::vector<std::int64_t>;

void synchronise(const at::TensorOptions& options) {
  if (options.device().is_cuda()) torch::cuda::synchronize();
}

at::Tensor random(at::IntArrayRef sizes, const at::TensorOptions& options) { return at::randn(sizes, options) * 0.1; }

at::Tensor leaf(at::IntArrayRef sizes, const at::TensorOptions& options) {
  return random(sizes, options).requires_grad_(true);
}

/// A differentiable operator, timed as training runs it: gradients of weights go to slots, others to autograd.
class Differentiable {
 public:
  Differentiable(std::function<at::Tensor()> forward, std::vector<at::Tensor> inputs, std::vector<at::Tensor> weights,
                 bool overwrite = true)
      : forward_(std::move(forward)), inputs_(std::move(inputs)), overwrite_(overwrite) {
    for (const at::Tensor& weight : weights) sinks_.add(weight, at::zeros_like(weight, at::TensorOptions()));
    inputs_.insert(inputs_.end(), weights.begin(), weights.end());
  }

  PassSeconds operator()() {
    const tensor::GradientSinks::Guard guard(sinks_);
    for (at::Tensor& input : inputs_) input.mutable_grad().reset();
    if (overwrite_) sinks_.begin_step();
    const base::Timer timer;
    const at::Tensor result = forward_();
    synchronise(result.options());
    const double forward_s = timer.seconds();
    if (!gradient_.defined()) gradient_ = random(result.sizes(), result.options());
    const base::Timer backward;
    result.backward(gradient_);
    synchronise(result.options());
    return {forward_s, backward.seconds()};
  }

 private:
  std::function<at::Tensor()> forward_;
  std::vector<at::Tensor> inputs_;
  tensor::GradientSinks sinks_;
  bool overwrite_;
  at::Tensor gradient_;
};

template <class... Arguments>
std::function<PassSeconds()> differentiable(Arguments&&... arguments) {
  auto pass = std::make_shared<Differentiable>(std::forward<Arguments>(arguments)...);
  return [pass] { return (*pass)(); };
}

class Maker {
 public:
  Maker(const OperatorShape& shape, const spec::ModelConfig& model, const at::TensorOptions& options)
      : op_(shape.op), sizes_(shape.sizes), model_(model), options_(options) {}

  OperatorPass make() const;

 private:
  std::int64_t size(std::size_t i) const { return sizes_.at(i); }
  /// Rows of a chunk of logits, and what is left to scale.
  std::int64_t chunk_rows(std::int64_t rows, std::int64_t vocab) const;
  bool is_rms() const { return model_.family == spec::Family::kLlama; }

  OperatorPass linear() const;
  OperatorPass norm() const;
  OperatorPass residual_add() const;
  OperatorPass activation(bool gated) const;
  OperatorPass attention() const;
  OperatorPass rope() const;
  OperatorPass embedding() const;
  OperatorPass cross_entropy() const;
  OperatorPass accumulate() const;

  const std::string op_;
  const Sizes sizes_;
  const spec::ModelConfig& model_;
  const at::TensorOptions options_;
};

std::int64_t Maker::chunk_rows(std::int64_t rows, std::int64_t vocab) const {
  return kernels::linear_cross_entropy_chunk_rows(rows, vocab, options_.dtype().toScalarType());
}

OperatorPass Maker::linear() const {
  const std::int64_t rows = size(2) == model_.vocab_size ? chunk_rows(size(0), size(2)) : size(0);
  const at::Tensor x = leaf({rows, size(1)}, options_), weight = leaf({size(2), size(1)}, options_);
  return {differentiable([=] { return kernels::linear(x, weight); }, std::vector{x}, std::vector{weight}),
          static_cast<double>(size(0)) / static_cast<double>(rows)};
}

OperatorPass Maker::norm() const {
  const at::Tensor x = leaf(sizes_, options_), weight = leaf({size(1)}, options_);
  const double eps = model_.norm_eps;
  if (is_rms()) {
    return {differentiable([=] { return kernels::rms_norm(x, weight, eps); }, std::vector{x}, std::vector{weight})};
  }
  const at::Tensor bias = leaf({size(1)}, options_);
  return {differentiable([=] { return kernels::layer_norm(x, weight, bias, eps); }, std::vector{x},
                         std::vector{weight, bias})};
}

/// Both results of add-and-norm feed what follows: the sum the next block, the norm this one.
PassSeconds fused_norm(const std::function<std::pair<at::Tensor, at::Tensor>()>& forward,
                       std::vector<at::Tensor> leaves, tensor::GradientSinks& sinks, const at::Tensor& gradient) {
  const tensor::GradientSinks::Guard guard(sinks);
  for (at::Tensor& input : leaves) input.mutable_grad().reset();
  sinks.begin_step();
  const base::Timer timer;
  const auto [sum, normal] = forward();
  synchronise(sum.options());
  const double forward_s = timer.seconds();
  const base::Timer backward;
  torch::autograd::backward({sum, normal}, {gradient, gradient});
  synchronise(sum.options());
  return {forward_s, backward.seconds()};
}

OperatorPass Maker::residual_add() const {
  const std::int64_t width = model_.hidden_size;
  GANTRY_CHECK(size(0) % width == 0, "residual_add of {} elements is no whole number of rows of {}", size(0), width);
  const Sizes shape{size(0) / width, width};
  const OperatorPass plain = Maker({"norm", shape}, model_, options_).make();
  const at::Tensor x = leaf(shape, options_), residual = leaf(shape, options_), weight = leaf({width}, options_);
  const at::Tensor bias = leaf({width}, options_), gradient = random(shape, options_);
  const auto sinks = std::make_shared<tensor::GradientSinks>();
  for (const at::Tensor& w : {weight, bias}) sinks->add(w, at::zeros_like(w, at::TensorOptions()));
  const bool rms = is_rms();
  const double eps = model_.norm_eps;
  const auto forward = [=] {
    return rms ? kernels::add_rms_norm(x, residual, weight, eps)
               : kernels::add_layer_norm(x, residual, weight, bias, eps);
  };
  return {[=] {
    const PassSeconds alone = plain.run();
    const PassSeconds fused = fused_norm(forward, {x, residual, weight, bias}, *sinks, gradient);
    return PassSeconds{fused.forward_s - alone.forward_s, fused.backward_s - alone.backward_s};
  }};
}

OperatorPass Maker::activation(bool gated) const {
  const layers::MlpActivation kind = models::to_layer(model_.activation);
  const std::int64_t width = size(0) % model_.intermediate_size == 0 ? model_.intermediate_size : size(0);
  const at::Tensor x = leaf({size(0) / width, gated ? 2 * width : width}, options_);
  const std::vector<at::Tensor> none;
  if (!gated) return {differentiable([=] { return layers::activate(x, kind); }, std::vector{x}, none)};
  if (kind == layers::MlpActivation::kSilu) {
    return {differentiable([=] { return kernels::swiglu(x); }, std::vector{x}, none)};
  }
  return {differentiable(
      [=] {
        const auto parts = x.chunk(2, -1);
        return layers::activate(parts[0], kind) * parts[1];
      },
      std::vector{x}, none)};
}

OperatorPass Maker::attention() const {
  const std::int64_t batch = size(0), heads = size(1), kv_heads = size(2), sequence = size(3), dim = size(4);
  const at::Tensor qkv = leaf({batch, sequence, (heads + 2 * kv_heads) * dim}, options_);
  const kernels::AttentionOptions o{.heads = heads, .kv_heads = kv_heads, .head_dim = dim};
  return {differentiable([=] { return kernels::packed_attention(qkv, {}, {}, o); }, std::vector{qkv},
                         std::vector<at::Tensor>())};
}

OperatorPass Maker::rope() const {
  const std::int64_t batch = size(0), heads = size(1), kv_heads = size(2), sequence = size(3), dim = size(4);
  const at::Tensor rows = random({batch * sequence, heads + 2 * kv_heads, dim}, options_);
  const at::Tensor turned = rows.narrow(1, 0, heads + kv_heads);
  std::vector<float> inverse(static_cast<std::size_t>(dim / 2));
  for (std::size_t i = 0; i < inverse.size(); ++i) inverse[i] = 1.0F / static_cast<float>(i + 1);
  const kernels::RopeTables tables = layers::make_rope_tables(inverse, 1, sequence, options_.device());
  const at::Tensor positions = at::arange(sequence, options_.dtype(at::kLong)).repeat({batch});
  return {[=] {
    PassSeconds seconds;
    for (const bool back : {false, true}) {
      const base::Timer timer;
      kernels::rope_(turned, positions, tables.cosine, tables.sine, back);
      synchronise(turned.options());
      (back ? seconds.backward_s : seconds.forward_s) = timer.seconds();
    }
    return seconds;
  }};
}

OperatorPass Maker::embedding() const {
  const at::Tensor ids = at::randint(size(2), {size(0)}, options_.dtype(at::kLong));
  const at::Tensor table = leaf({size(2), size(1)}, options_);
  return {differentiable([=] { return kernels::embedding(ids, table); }, std::vector<at::Tensor>(), std::vector{table},
                         !model_.tied_embeddings)};
}

OperatorPass Maker::cross_entropy() const {
  const std::int64_t rows = chunk_rows(size(0), size(1));
  const double scale = static_cast<double>(size(0)) / static_cast<double>(rows);
  const at::Tensor labels = at::randint(size(1), {rows}, options_.dtype(at::kLong));
  at::Tensor logits = random({rows, size(1)}, options_);
  if (!kernels::has_raw_kernel(logits)) {
    logits.requires_grad_(true);
    return {differentiable([=] { return at::cross_entropy_loss(logits.to(at::kFloat), labels); }, std::vector{logits},
                           std::vector<at::Tensor>()),
            scale};
  }
  const at::Tensor losses = at::empty({rows}, options_.dtype(at::kFloat));
  // In place: logits become gradients, which are as good for the next run.
  return {[=] {
            const double loss_s = seconds_of([&] { kernels::softmax_losses(logits, labels, losses, 0); });
            const double both_s = seconds_of([&] { kernels::softmax_losses(logits, labels, losses, 1); });
            return PassSeconds{loss_s, both_s - loss_s};
          },
          scale};
}

OperatorPass Maker::accumulate() const {
  const at::Tensor sum = at::zeros(sizes_, options_), part = at::ones(sizes_, options_);
  return {[=] {
    const base::Timer timer;
    sum.add_(part);
    synchronise(sum.options());
    return PassSeconds{timer.seconds(), 0};
  }};
}

OperatorPass Maker::make() const {
  if (op_ == "linear") return linear();
  if (op_ == "norm") return norm();
  if (op_ == "residual_add") return residual_add();
  if (op_ == "activation" || op_ == "gated_activation") return activation(op_ == "gated_activation");
  if (op_ == "attention_flash") return attention();
  if (op_ == "rope") return rope();
  if (op_ == "embedding") return embedding();
  if (op_ == "cross_entropy") return cross_entropy();
  if (op_ == "accumulate") return accumulate();
  if (op_ == "dropout") {
    const at::Tensor x = leaf(sizes_, options_);
    return {differentiable([=] { return at::dropout(x, 0.1, true); }, std::vector{x}, std::vector<at::Tensor>())};
  }
  base::fail_input("operator '{}' is not one that Gantry's layers run", op_);
}

}  // namespace

OperatorPass make_pass(const OperatorShape& shape, const spec::ModelConfig& model, const at::TensorOptions& options) {
  return Maker(shape, model, options).make();
}

}  // namespace gantry::measure
