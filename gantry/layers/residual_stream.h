#pragma once
// The residual stream of pre-norm blocks. What a block computed joins it in the norm that follows, in one pass.
#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>

#include <utility>

#include "gantry/kernels/dropout/dropout.h"
#include "gantry/layers/norm.h"

namespace gantry::layers {

class ResidualStream {
 public:
  /// `dropout`: of every update.
  ResidualStream(at::Tensor start, double dropout) : stream_(std::move(start)), dropout_(dropout) {}

  /// Adds the pending update, normalises the sum: what the next block reads.
  template <class Norm>
  at::Tensor normalize(const Norm& norm, MemoryMode memory) {
    if (!update_.defined()) return norm->forward(stream_, memory);
    AddNormResult result = norm->add_forward(update_, stream_, {.dropout = dropout_, .memory = memory});
    stream_ = std::move(result.sum);
    update_.reset();
    return result.normal;
  }

  /// What a block computed; joins the stream in the next normalize() or finish().
  void add(at::Tensor update) { update_ = std::move(update); }

  /// The stream as the last normalize() left it.
  const at::Tensor& value() const { return stream_; }

  /// Adds what is pending and returns the stream.
  const at::Tensor& finish() {
    if (update_.defined()) stream_ = at::add(stream_, kernels::dropout(update_, kernels::draw_dropout(dropout_)));
    update_.reset();
    return stream_;
  }

 private:
  at::Tensor stream_, update_;
  double dropout_;
};

}  // namespace gantry::layers
