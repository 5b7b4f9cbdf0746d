#pragma once
// Times of a model's operators, forward and backward, with the kernels and the autograd functions that training runs.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "gantry/cost/profile.h"
#include "gantry/measure/timing.h"
#include "gantry/spec/config.h"

namespace gantry::measure {

struct OperatorShape {
  std::string op;
  std::vector<std::int64_t> sizes;  ///< as cost::operator_size_names() orders them
};

/// The operators that the cost model looks up for one micro-batch of each of `batches` sequences (flash attention, no
/// tensor parallelism), each once, and the accumulation of each section's gradients. By-products of other
/// implementations (casts, means) are left out.
std::vector<OperatorShape> operators_to_measure(const spec::ModelConfig& model, std::int64_t sequence,
                                                std::span<const std::int64_t> batches, at::ScalarType dtype);

struct MeasuredOperator {
  cost::OperatorTime time;
  double spread = 0;  ///< of the noisier of forward and backward, see Timing
  int runs = 0;
};

/// Times one operator.
///   linear          products as kernels::linear; the weight's gradient goes to its slot of a flat buffer. One that
///   ends
///                   in the vocabulary runs as the fused head does, a chunk of rows at a time, and is scaled up.
///   cross_entropy   backward is what the gradient costs beyond the loss; by chunks too
///   norm            of the model's kind
///   residual_add    what adding costs inside the fused add-and-norm: paired differences, so small ones are noisy
///   attention_flash causal, without rotation; rope rotates queries and keys in place
///   embedding       with a tied head backward only adds rows, else it clears the table's gradient first
/// Weights may stay in the caches from run to run, as they do not in a long model. InputError for an operator that no
/// layer of Gantry runs.
MeasuredOperator measure_operator(const OperatorShape& shape, const spec::ModelConfig& model, at::ScalarType dtype,
                                  at::Device device, const TimingOptions& options);

}  // namespace gantry::measure
