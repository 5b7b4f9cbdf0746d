#include "gantry/kernels/cross_entropy/chunked_head.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "gantry/kernels/common.h"
#include "gantry/kernels/cross_entropy/cross_entropy_raw.h"
#include "gantry/kernels/gemm/gemm.h"
#include "gantry/tensor/gradient_sink.h"

namespace gantry::kernels {
namespace {

// Losses of a chunk in ATen operators; logits become their gradients when scale is not 0.
void composed_losses(const HeadProblem& problem, const at::Tensor& logits, const at::Tensor& labels,
                     const at::Tensor& losses, double scale) {
  const double smoothing = problem.label_smoothing;
  const at::Tensor log_probabilities = at::log_softmax(logits, 1, losses.scalar_type()), index = labels.unsqueeze(1);
  at::Tensor loss = log_probabilities.gather(1, index).squeeze(1).mul_(smoothing - 1);
  if (smoothing != 0) loss -= log_probabilities.mean(1) * smoothing;
  at::Tensor slope;
  if (problem.z_loss != 0) {
    const at::Tensor lse = at::logsumexp(logits.to(losses.scalar_type()), 1);
    loss += lse.square() * problem.z_loss;
    slope = (lse * (2 * problem.z_loss) + 1).unsqueeze(1);
  }
  losses.copy_(loss);
  if (scale == 0) return;
  at::Tensor gradient = log_probabilities.exp_();
  if (slope.defined()) gradient *= slope;
  if (smoothing != 0) gradient -= smoothing / static_cast<double>(logits.size(1));
  gradient.scatter_add_(1, index, at::full_like(index, smoothing - 1, gradient.options()));
  logits.copy_(gradient.mul_(scale));
}

void chunk_losses(const HeadProblem& problem, const at::Tensor& logits, const at::Tensor& labels,
                  const at::Tensor& losses, double scale) {
  if (!has_raw_kernel(logits)) return composed_losses(problem, logits, labels, losses, scale);
  softmax_losses(logits, labels, losses, scale, problem.label_smoothing, problem.z_loss);
}

// slot (+)= a b for a slot of a wider type: without a product of the slot's whole size.
void add_product_in_blocks(tensor::GradientSlot& slot, const at::Tensor& a, const at::Tensor& b) {
  constexpr std::int64_t kBlock = 16384;
  for (std::int64_t first = 0; first < a.size(0); first += kBlock) {
    const std::int64_t rows = std::min(kBlock, a.size(0) - first);
    tensor::GradientSlot part{slot.gradient.narrow(0, first, rows), slot.written};
    tensor::accumulate(part, at::mm(a.narrow(0, first, rows), b));
  }
  slot.written = true;
}

// Where a parameter's gradient gathers during the loop: its slot, or a tensor of its own in the type of the sums.
class Gatherer {
 public:
  Gatherer(const at::Tensor& parameter, bool wanted, at::ScalarType type) : wanted_(wanted) {
    if (!wanted_) return;
    auto* sinks = tensor::GradientSinks::active();
    slot_ = sinks == nullptr ? nullptr : sinks->find(parameter);
    if (slot_ == nullptr) own_.gradient = at::empty_like(parameter, parameter.options().dtype(type));
  }
  bool wanted() const { return wanted_; }
  bool in_slot() const { return slot_ != nullptr; }
  void add(const at::Tensor& value) { tensor::accumulate(place(), value); }
  void add_product(const at::Tensor& a, const at::Tensor& b) {
    if (place().gradient.scalar_type() != a.scalar_type()) return add_product_in_blocks(place(), a, b);
    add_matrix_product(place(), a, b);
  }
  /// The tensor to hand to autograd; undefined when a slot took it.
  at::Tensor result() const {
    if (in_slot() || !wanted_) return {};
    return own_.written ? own_.gradient : own_.gradient.zero_();
  }

 private:
  tensor::GradientSlot& place() { return in_slot() ? *slot_ : own_; }

  bool wanted_;
  tensor::GradientSlot* slot_ = nullptr;
  tensor::GradientSlot own_;
};

class Loop {
 public:
  Loop(const HeadProblem& problem, HeadNeeds needs)
      : problem_(problem),
        needs_(needs),
        type_(problem.hidden.scalar_type() == at::kHalf ? at::kFloat : problem.hidden.scalar_type()),
        sum_type_(type_ == at::kDouble ? at::kDouble : at::kFloat),
        weight_(problem.weight.to(type_)),
        bias_(problem.bias.defined() ? problem.bias.to(type_) : at::Tensor()),
        dweight_(problem.weight, needs.weight, sum_type_),
        dbias_(problem.bias, needs.bias, sum_type_) {}

  HeadResult run() {
    const at::Tensor& hidden = problem_.hidden;
    const std::int64_t counted = problem_.labels.size(0);
    HeadResult result;
    result.losses = at::empty({counted}, hidden.options().dtype(sum_type_));
    if (needs_.hidden) {
      dhidden_ = at::empty(hidden.sizes(), hidden.options().dtype(type_));
      if (counted < hidden.size(0)) dhidden_.zero_();
    }
    run_chunks(result.losses);
    // fp16 keeps its gradients wide until the incoming one is known.
    const bool narrow = problem_.hidden.scalar_type() == at::kBFloat16;
    const auto finished = [&](const at::Tensor& x) { return narrow && x.defined() ? x.to(type_) : x; };
    result.dhidden = dhidden_;
    result.dweight = finished(dweight_.result());
    result.dbias = finished(dbias_.result());
    result.in_slot = dweight_.in_slot() || dbias_.in_slot();
    return result;
  }

 private:
  void run_chunks(const at::Tensor& losses) {
    const std::int64_t counted = losses.size(0), vocab = weight_.size(0);
    if (counted == 0) return;
    const std::int64_t step = linear_cross_entropy_chunk_rows(counted, vocab, type_, problem_.chunk_bytes);
    const at::Tensor buffer = at::empty({step, vocab}, weight_.options());
    for (std::int64_t first = 0; first < counted; first += step) {
      const std::int64_t rows = std::min(step, counted - first);
      run_chunk(first, buffer.narrow(0, 0, rows), losses.narrow(0, first, rows));
    }
  }

  void run_chunk(std::int64_t first, const at::Tensor& logits, const at::Tensor& losses) {
    const std::int64_t rows = logits.size(0);
    const bool gathered = problem_.positions.defined();
    const at::Tensor index = gathered ? problem_.positions.narrow(0, first, rows) : at::Tensor();
    const at::Tensor part =
        (gathered ? problem_.hidden.index_select(0, index) : problem_.hidden.narrow(0, first, rows)).to(type_);
    matrix_product_out(logits, part, weight_.t(), bias_);
    chunk_losses(problem_, logits, problem_.labels.narrow(0, first, rows), losses, needs_.any() ? problem_.scale : 0.0);
    if (needs_.hidden && gathered) {
      dhidden_.index_copy_(0, index, matrix_product(logits, weight_));
    } else if (needs_.hidden) {
      matrix_product_out(dhidden_.narrow(0, first, rows), logits, weight_);
    }
    if (dweight_.wanted()) dweight_.add_product(logits.t(), part);
    if (dbias_.wanted()) dbias_.add(logits.sum(0, false, sum_type_));
  }

  const HeadProblem& problem_;
  const HeadNeeds needs_;
  const at::ScalarType type_, sum_type_;  // of the products, and of what is summed over chunks
  const at::Tensor weight_, bias_;
  Gatherer dweight_, dbias_;
  at::Tensor dhidden_;
};

}  // namespace

void softmax_losses(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& losses, double scale,
                    double label_smoothing, double z_loss) {
  dispatch_raw(logits.scalar_type(), [&]<class Raw>() {
    const auto kernel = GANTRY_ISA_SELECT(cross_entropy<Raw>);
    at::parallel_for(0, logits.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
      kernel({.logits = raw<Raw>(logits),
              .labels = raw_const<std::int64_t>(labels),
              .losses = raw<float>(losses),
              .vocab = logits.size(1),
              .scale = static_cast<float>(scale),
              .label_smoothing = static_cast<float>(label_smoothing),
              .z_loss = static_cast<float>(z_loss)},
             begin, end);
    });
  });
}

HeadResult run_head(const HeadProblem& problem, HeadNeeds needs) { return Loop(problem, needs).run(); }

std::int64_t linear_cross_entropy_chunk_rows(std::int64_t tokens, std::int64_t vocab, at::ScalarType type,
                                             std::int64_t chunk_bytes) {
  // In fp32 every chunk reads the weight twice and adds to its gradient once, which few rows would not repay.
  constexpr std::int64_t kChunkMiB = 24, kFp32ChunkMiB = 68, kLeastRows = 16, kTile = 8;
  const bool sixteen_bits = type == at::kBFloat16;
  if (chunk_bytes == 0) chunk_bytes = (sixteen_bits ? kChunkMiB : kFp32ChunkMiB) << 20;
  const std::int64_t row_bytes = std::max<std::int64_t>(1, vocab * static_cast<std::int64_t>(at::elementSize(type)));
  const std::int64_t most = std::max(kLeastRows, chunk_bytes / row_bytes / kTile * kTile);
  const std::int64_t chunks = std::max<std::int64_t>(1, (tokens + most - 1) / most);
  const std::int64_t even = ((tokens + chunks - 1) / chunks + kTile - 1) / kTile * kTile;
  return std::max<std::int64_t>(1, std::min(even, tokens));
}

}  // namespace gantry::kernels
