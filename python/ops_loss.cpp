// A linear layer and its cross entropy, a chunk of tokens at a time, so that [tokens, vocabulary] logits never exist.
// kernels/cross_entropy does the same for labels below zero only and without smoothing.
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <tuple>

#include "gantry/kernels/common.h"
#include "gantry/kernels/cross_entropy/cross_entropy_raw.h"
#include "gantry/kernels/gemm/gemm.h"
#include "python/ops.h"

namespace gantry::python {
namespace {

using namespace kernels;
using Wanted = std::array<bool, 3>;

struct Head {
  at::Tensor hidden;  ///< [tokens, n]
  at::Tensor weight;  ///< [vocab, n]
  at::Tensor bias;    ///< [vocab] or undefined
  at::Tensor labels;  ///< [tokens], -1: does not count
  double smoothing;
};

Head make_head(const at::Tensor& hidden, const at::Tensor& weight, const OptionalTensor& bias, const at::Tensor& labels,
               std::int64_t ignore_index, double smoothing) {
  GANTRY_CHECK(hidden.dim() >= 1 && weight.dim() == 2 && hidden.size(-1) == weight.size(1) && weight.numel() > 0,
               "linear_cross_entropy: hidden {} does not fit weight {}", c10::str(hidden.sizes()),
               c10::str(weight.sizes()));
  GANTRY_CHECK(hidden.is_floating_point() && hidden.scalar_type() == weight.scalar_type(),
               "linear_cross_entropy: hidden is {} and weight is {}, expected one floating-point type",
               c10::toString(hidden.scalar_type()), c10::toString(weight.scalar_type()));
  GANTRY_CHECK(!bias.has_value() || (bias->dim() == 1 && bias->size(0) == weight.size(0)),
               "linear_cross_entropy: the bias does not fit weight {}", c10::str(weight.sizes()));
  GANTRY_CHECK(labels.scalar_type() == at::kLong && labels.numel() * hidden.size(-1) == hidden.numel(),
               "linear_cross_entropy: expected {} int64 labels, got {} {}", hidden.numel() / hidden.size(-1),
               c10::toString(labels.scalar_type()), c10::str(labels.sizes()));
  GANTRY_CHECK(smoothing >= 0 && smoothing <= 1, "linear_cross_entropy: label_smoothing is {}, expected 0 to 1",
               smoothing);
  const at::Tensor flat = labels.reshape({-1}), ignored = flat.eq(ignore_index);
  const at::Tensor wrong = flat.lt(0).logical_or_(flat.ge(weight.size(0))).logical_and_(ignored.logical_not());
  GANTRY_CHECK(!wrong.any().item<bool>(), "linear_cross_entropy: label {} is outside a vocabulary of {}",
               flat.masked_select(wrong)[0].item<std::int64_t>(), weight.size(0));
  return {hidden.reshape({-1, hidden.size(-1)}).contiguous(), weight, value_or_undefined(bias),
          flat.masked_fill(ignored, -1).contiguous(), smoothing};
}

at::ScalarType wide_type(const at::Tensor& x) { return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

// In fp32 every chunk reads the weight twice and adds to its gradient once, so that chunks are larger.
std::int64_t chunk_rows(const Head& head) {
  const std::int64_t bytes = (head.hidden.scalar_type() == at::kFloat ? 96 : 24) << 20;
  const std::int64_t row = head.weight.size(0) * head.hidden.element_size();
  return std::max<std::int64_t>(16, bytes / row);
}

at::Tensor logits_of(const Head& head, const at::Tensor& part) {
  if (gemm_applies(part, head.weight.t())) return matrix_product(part, head.weight.t(), head.bias);
  return at::linear(part, head.weight, head.bias.defined() ? OptionalTensor(head.bias) : std::nullopt).contiguous();
}

// losses = -log softmax(logits)[label]; logits become gradients unless scale is 0.
void plain_losses(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& losses, double scale) {
  if (has_raw_kernel(logits)) {
    dispatch_raw(logits.scalar_type(), [&]<class Raw>() {
      const CrossEntropyArgs<Raw> args{.logits = raw<Raw>(logits),
                                       .labels = raw_const<std::int64_t>(labels),
                                       .losses = raw<float>(losses),
                                       .vocab = logits.size(1),
                                       .scale = static_cast<float>(scale)};
      const auto kernel = GANTRY_ISA_SELECT(cross_entropy<Raw>);
      at::parallel_for(0, logits.size(0), 1, [&](std::int64_t begin, std::int64_t end) { kernel(args, begin, end); });
    });
    return;
  }
  const at::Tensor log_softmax = at::log_softmax(logits, 1, losses.scalar_type());
  const at::Tensor counts = labels.ge(0).unsqueeze(1), index = labels.clamp_min(0).unsqueeze(1);
  losses.copy_((log_softmax.gather(1, index).neg()).masked_fill(counts.logical_not(), 0).squeeze(1));
  if (scale == 0) return;
  const at::Tensor one = at::ones_like(index, log_softmax.options());
  logits.copy_(log_softmax.exp().scatter_add(1, index, one.neg()).mul(scale).masked_fill(counts.logical_not(), 0));
}

// With smoothing s the target is (1 - s) onehot + s / vocab: the loss grows by s (z[label] - mean z), whose gradient is
// s (onehot - 1 / vocab).
void softmax_losses(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& losses, double scale,
                    double smoothing) {
  if (smoothing == 0) return plain_losses(logits, labels, losses, scale);
  const auto wide = losses.scalar_type();
  const at::Tensor counts = labels.ge(0), index = labels.clamp_min(0).unsqueeze(1);
  const at::Tensor label_logit = logits.gather(1, index).squeeze(1).to(wide);
  const at::Tensor extra = (label_logit - logits.mean(1, false, wide)).masked_fill(counts.logical_not(), 0);
  plain_losses(logits, labels, losses, scale);
  losses.add_(extra, smoothing);
  if (scale == 0) return;
  const at::Tensor amount = counts.to(logits.scalar_type()).mul(smoothing * scale).unsqueeze(1);
  logits.sub_(amount / static_cast<double>(logits.size(1))).scatter_add_(1, index, amount);
}

struct Gradients {
  at::Tensor dhidden, dweight, dbias;
};

// Calls body(first, rows) for each chunk.
template <class Body>
void for_chunks(const Head& head, Body body) {
  const std::int64_t tokens = head.hidden.size(0), step = chunk_rows(head);
  for (std::int64_t first = 0; first < tokens; first += step) body(first, std::min(step, tokens - first));
}

class GradientSum {
 public:
  GradientSum(const Head& head, Wanted wanted) : head_(head), wanted_(wanted) {
    if (wanted[0]) result_.dhidden = at::empty_like(head.hidden);
    if (wanted[1]) weight_.gradient = at::empty(head.weight.sizes(), head.weight.options());
    if (wanted[2]) result_.dbias = at::zeros_like(head.bias, head.bias.options().dtype(wide_type(head.bias)));
  }

  void add(std::int64_t first, const at::Tensor& dlogits) {
    const std::int64_t rows = dlogits.size(0);
    if (wanted_[0]) matrix_product_out(result_.dhidden.narrow(0, first, rows), dlogits, head_.weight);
    if (wanted_[1]) add_matrix_product(weight_, dlogits.t(), head_.hidden.narrow(0, first, rows));
    if (wanted_[2]) result_.dbias.add_(dlogits.sum(0, false, result_.dbias.scalar_type()));
  }

  Gradients take() {
    if (wanted_[1]) result_.dweight = weight_.written ? weight_.gradient : weight_.gradient.zero_();
    if (wanted_[2]) result_.dbias = result_.dbias.to(head_.bias.scalar_type());
    return result_;
  }

 private:
  const Head& head_;
  Wanted wanted_;
  Gradients result_;
  tensor::GradientSlot weight_;
};

at::Tensor empty_losses(const Head& head) {
  return at::empty({head.hidden.size(0)}, head.hidden.options().dtype(wide_type(head.hidden)));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> linear_cross_entropy_op(
    const at::Tensor& hidden, const at::Tensor& weight, const OptionalTensor& bias, const at::Tensor& labels,
    std::int64_t ignore_index, double smoothing, bool mean, Wanted wanted) {
  const BelowAutograd below;
  const Head head = make_head(hidden, weight, bias, labels, ignore_index, smoothing);
  wanted[2] = wanted[2] && head.bias.defined();
  // As in torch, the mean over no label is NaN, and its gradients are zero.
  const double count = mean ? head.labels.ge(0).sum().item<double>() : 1.0;
  const double scale = count > 0 ? 1.0 / count : 1.0;
  const at::Tensor losses = empty_losses(head);
  GradientSum gradients(head, wanted);
  const bool any = wanted[0] || wanted[1] || wanted[2];
  for_chunks(head, [&](std::int64_t first, std::int64_t rows) {
    const at::Tensor logits = logits_of(head, head.hidden.narrow(0, first, rows));
    softmax_losses(logits, head.labels.narrow(0, first, rows), losses.narrow(0, first, rows), any ? scale : 0.0,
                   smoothing);
    if (any) gradients.add(first, logits);
  });
  const Gradients result = gradients.take();
  const at::Tensor dhidden = result.dhidden.defined() ? result.dhidden.view(hidden.sizes()) : absent(hidden);
  return {losses.sum().div_(count), dhidden, or_absent(result.dweight, hidden), or_absent(result.dbias, hidden)};
}

at::Tensor losses_op(const at::Tensor& hidden, const at::Tensor& weight, const OptionalTensor& bias,
                     const at::Tensor& labels, std::int64_t ignore_index, double smoothing) {
  const BelowAutograd below;
  const Head head = make_head(hidden, weight, bias, labels, ignore_index, smoothing);
  const at::Tensor losses = empty_losses(head);
  for_chunks(head, [&](std::int64_t first, std::int64_t rows) {
    softmax_losses(logits_of(head, head.hidden.narrow(0, first, rows)), head.labels.narrow(0, first, rows),
                   losses.narrow(0, first, rows), 0.0, smoothing);
  });
  return losses.view(labels.sizes());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> losses_backward_op(const at::Tensor& dlosses, const at::Tensor& hidden,
                                                                  const at::Tensor& weight, const OptionalTensor& bias,
                                                                  const at::Tensor& labels, std::int64_t ignore_index,
                                                                  double smoothing, Wanted wanted) {
  const BelowAutograd below;
  const Head head = make_head(hidden, weight, bias, labels, ignore_index, smoothing);
  wanted[2] = wanted[2] && head.bias.defined();
  const at::Tensor losses = empty_losses(head);
  const at::Tensor factors = dlosses.reshape({-1, 1});
  GradientSum gradients(head, wanted);
  for_chunks(head, [&](std::int64_t first, std::int64_t rows) {
    const at::Tensor logits = logits_of(head, head.hidden.narrow(0, first, rows));
    softmax_losses(logits, head.labels.narrow(0, first, rows), losses.narrow(0, first, rows), 1.0, smoothing);
    gradients.add(first, logits.mul_(factors.narrow(0, first, rows)));
  });
  const Gradients result = gradients.take();
  const at::Tensor dhidden = result.dhidden.defined() ? result.dhidden.view(hidden.sizes()) : absent(hidden);
  return {dhidden, or_absent(result.dweight, hidden), or_absent(result.dbias, hidden)};
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
