#include "gantry/kernels/cross_entropy/linear_cross_entropy.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "gantry/kernels/common.h"
#include "gantry/kernels/cross_entropy/cross_entropy_raw.h"
#include "gantry/kernels/gemm/gemm.h"
#include "gantry/kernels/norm_gradients.h"
#include "gantry/tensor/gradient_sink.h"

namespace gantry::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// Losses of a chunk; logits become their gradients when scale is not 0.
void softmax_losses(at::Tensor& logits, const at::Tensor& labels, at::Tensor& losses, double scale) {
  if (has_raw_kernel(logits)) {
    dispatch_raw(logits.scalar_type(), [&]<class Raw>() {
      const auto kernel = GANTRY_ISA_SELECT(cross_entropy<Raw>);
      at::parallel_for(0, logits.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
        kernel({.logits = raw<Raw>(logits),
                .labels = raw_const<std::int64_t>(labels),
                .losses = raw<float>(losses),
                .vocab = logits.size(1),
                .scale = static_cast<float>(scale)},
               begin, end);
      });
    });
    return;
  }
  const at::Tensor log_probabilities = at::log_softmax(logits, 1, at::kFloat);
  const at::Tensor counted = labels.ge(0).unsqueeze(1);
  const at::Tensor index = labels.clamp_min(0).unsqueeze(1);
  losses.copy_((-log_probabilities.gather(1, index) * counted).squeeze(1));
  if (scale == 0) return;
  const at::Tensor one = at::ones_like(index, log_probabilities.options());
  logits.copy_(log_probabilities.exp().scatter_add(1, index, -one) * counted * scale);
}

// In fp32 every chunk reads the weight twice and adds to its gradient once: at 128 rows (24 MiB of 49152 logits) that
// traffic takes as long as a quarter of the products.
constexpr std::int64_t kChunkMiB = 24, kFp32ChunkMiB = 96;

struct Chunks {
  std::int64_t tokens, rows;
};

Chunks plan_chunks(const at::Tensor& hidden2, const at::Tensor& weight, std::int64_t chunk_bytes) {
  if (chunk_bytes == 0) chunk_bytes = (hidden2.scalar_type() == at::kFloat ? kFp32ChunkMiB : kChunkMiB) << 20;
  const std::int64_t row_bytes =
      std::max<std::int64_t>(1, weight.size(0) * static_cast<std::int64_t>(hidden2.element_size()));
  const std::int64_t rows = std::max<std::int64_t>(16, chunk_bytes / row_bytes);
  return {hidden2.size(0), std::min(rows, std::max<std::int64_t>(1, hidden2.size(0)))};
}

at::Tensor chunk_logits(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias) {
  if (gemm_applies(hidden, weight.t())) return matrix_product(hidden, weight.t(), bias);
  return at::linear(hidden, weight, bias.defined() ? std::optional(bias) : std::nullopt);
}

// Where a parameter's gradient gathers during the loop: its slot, or a tensor of its own.
struct Gatherer {
  Gatherer(const at::Tensor& parameter, bool wanted) : needed(wanted) {
    if (!needed) return;
    auto* sinks = tensor::GradientSinks::active();
    slot = sinks == nullptr ? nullptr : sinks->find(parameter);
    if (slot == nullptr) own.gradient = at::empty_like(parameter);
  }
  tensor::GradientSlot& place() { return slot != nullptr ? *slot : own; }
  /// The tensor to hand to autograd; undefined when a slot took it.
  at::Tensor result() const {
    if (slot != nullptr || !needed) return {};
    return own.written ? own.gradient : own.gradient.zero_();
  }

  bool needed;
  tensor::GradientSlot* slot = nullptr;
  tensor::GradientSlot own;
};

struct Needs {
  bool hidden, weight, bias;
};

struct Result {
  at::Tensor loss, dhidden, dweight, dbias;
};

Result run(const at::Tensor& hidden2, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& labels,
           double normalizer, std::int64_t chunk_bytes, Needs needs) {
  const Chunks chunks = plan_chunks(hidden2, weight, chunk_bytes);
  const bool any_gradient = needs.hidden || needs.weight || needs.bias;
  const double scale = 1.0 / normalizer;
  at::Tensor losses = at::empty({chunks.tokens}, hidden2.options().dtype(at::kFloat));
  Result result;
  if (needs.hidden) result.dhidden = at::empty_like(hidden2);
  Gatherer dweight(weight, needs.weight), dbias(bias, needs.bias);
  for (std::int64_t first = 0; first < chunks.tokens; first += chunks.rows) {
    const std::int64_t rows = std::min(chunks.rows, chunks.tokens - first);
    const at::Tensor part = hidden2.narrow(0, first, rows);
    at::Tensor logits = chunk_logits(part, weight, bias);
    at::Tensor part_losses = losses.narrow(0, first, rows);
    softmax_losses(logits, labels.narrow(0, first, rows), part_losses, any_gradient ? scale : 0.0);
    if (needs.hidden) {
      matrix_product_out(result.dhidden.narrow(0, first, rows), logits, weight);
    }
    if (needs.weight) add_matrix_product(dweight.place(), logits.t(), part);
    if (needs.bias) tensor::accumulate(dbias.place(), logits.sum(0, false, at::kFloat));
  }
  result.loss = losses.sum().mul_(scale);
  result.dweight = dweight.result();
  result.dbias = dbias.result();
  return result;
}

struct LinearCrossEntropyFunction : torch::autograd::Function<LinearCrossEntropyFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden, const at::Tensor& weight,
                            at::TensorList biases, const at::Tensor& labels, double normalizer,
                            std::int64_t chunk_bytes, bool tracked) {
    // None or one: autograd's argument scan does not accept an undefined tensor.
    const at::Tensor bias = biases.empty() ? at::Tensor() : biases[0];
    const at::Tensor hidden2 = hidden.reshape({-1, hidden.size(-1)}).contiguous();
    const Needs needs{tracked && hidden.requires_grad(), tracked && weight.requires_grad(),
                      tracked && bias.defined() && bias.requires_grad()};
    Result result = run(hidden2, weight, bias, labels, normalizer, chunk_bytes, needs);
    ctx->saved_data["shape"] = hidden.sizes();
    ctx->saved_data["in_slot"] = (needs.weight && !result.dweight.defined()) || (needs.bias && !result.dbias.defined());
    ctx->saved_data["has_bias"] = bias.defined();
    ctx->save_for_backward({result.dhidden, result.dweight, result.dbias});
    return result.loss;
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const double factor = gradients[0].item<double>();
    GANTRY_CHECK(!ctx->saved_data["in_slot"].toBool() || factor == 1.0,
                 "linear_cross_entropy: with fused gradient accumulation backward() must start at the loss itself; "
                 "scale it through the normalizer option (got a gradient of {})",
                 factor);
    const auto scaled = [&](const at::Tensor& x) { return !x.defined() || factor == 1.0 ? x : x * factor; };
    tensor_list result{scaled(saved[0]), scaled(saved[1])};
    if (result[0].defined()) result[0] = result[0].view(ctx->saved_data["shape"].toIntVector());
    if (ctx->saved_data["has_bias"].toBool()) result.push_back(scaled(saved[2]));
    result.resize(result.size() + 4);  // labels and the three numbers
    return result;
  }
};

void check_inputs(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                  const at::Tensor& labels) {
  GANTRY_CHECK(weight.dim() == 2 && hidden.dim() >= 1 && hidden.size(-1) == weight.size(1),
               "linear_cross_entropy: hidden {} does not fit weight {}", c10::str(hidden.sizes()),
               c10::str(weight.sizes()));
  GANTRY_CHECK(!bias.defined() || (bias.dim() == 1 && bias.size(0) == weight.size(0)),
               "linear_cross_entropy: the bias does not fit weight {}", c10::str(weight.sizes()));
  GANTRY_CHECK(labels.scalar_type() == at::kLong && labels.numel() == row_count(hidden),
               "linear_cross_entropy: expected {} int64 labels, got {} of {}", row_count(hidden), labels.numel(),
               c10::toString(labels.scalar_type()));
  if (labels.is_cpu() && labels.numel() > 0) {
    const auto highest = labels.max().item<std::int64_t>();
    GANTRY_CHECK(highest < weight.size(0), "linear_cross_entropy: label {} is outside a vocabulary of {}", highest,
                 weight.size(0));
  }
}

}  // namespace

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                                const at::Tensor& labels, const LinearCrossEntropyOptions& options) {
  check_inputs(hidden, weight, bias, labels);
  const at::Tensor flat = labels.reshape({-1}).contiguous();
  double normalizer = options.normalizer;
  if (normalizer == 0) normalizer = std::max<double>(1.0, flat.ge(0).sum().item<double>());
  // Inside forward() gradient mode is always off, so ask here: without it no slot may be written.
  const at::TensorList biases(&bias, bias.defined() ? 1 : 0);
  return LinearCrossEntropyFunction::apply(hidden, weight, biases, flat, normalizer, options.chunk_bytes,
                                           at::GradMode::is_enabled());
}

at::Tensor linear_cross_entropy_losses(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                                       const at::Tensor& labels, const LinearCrossEntropyOptions& options) {
  check_inputs(hidden, weight, bias, labels);
  const at::NoGradGuard no_grad;
  const at::Tensor hidden2 = hidden.reshape({-1, hidden.size(-1)}).contiguous();
  const at::Tensor flat = labels.reshape({-1}).contiguous();
  const Chunks chunks = plan_chunks(hidden2, weight, options.chunk_bytes);
  at::Tensor losses = at::empty({chunks.tokens}, hidden2.options().dtype(at::kFloat));
  for (std::int64_t first = 0; first < chunks.tokens; first += chunks.rows) {
    const std::int64_t rows = std::min(chunks.rows, chunks.tokens - first);
    at::Tensor logits = chunk_logits(hidden2.narrow(0, first, rows), weight, bias);
    at::Tensor part = losses.narrow(0, first, rows);
    softmax_losses(logits, flat.narrow(0, first, rows), part, 0.0);
  }
  return losses;
}

}  // namespace gantry::kernels
