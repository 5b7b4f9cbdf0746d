#pragma once
// All trainable parameters in one buffer, their gradients in another: the optimiser makes one pass, and neighbours in
// the tensor table (query, key and value; gate and up) multiply as one matrix.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "gantry/tensor/gradient_sink.h"

namespace gantry::train {

struct NamedParameter {
  std::string name;
  at::Tensor parameter;
  bool weight_decay;
};

/// A range of the flat buffers with one weight-decay setting.
struct DecayRange {
  std::int64_t begin, end;
  bool weight_decay;
};

class FlatParameters {
 public:
  /// Copies `parameters` into one buffer of `dtype` (fp32, or bf16 with an exact fp32 master kept as a 16-bit
  /// remainder) in the order given, and makes them views of it. Gradients are kept in `gradient_dtype`.
  FlatParameters(std::vector<NamedParameter> parameters, at::ScalarType dtype, at::ScalarType gradient_dtype);

  std::int64_t size() const { return values_.numel(); }
  const std::vector<NamedParameter>& parameters() const { return parameters_; }
  const std::vector<DecayRange>& decay_ranges() const { return decay_ranges_; }

  const at::Tensor& values() const { return values_; }        ///< [n] fp32 or bf16
  const at::Tensor& remainder() const { return remainder_; }  ///< [n] int16 beside bf16, else undefined
  const at::Tensor& gradients() const { return gradients_; }  ///< [n]
  tensor::GradientSinks& sinks() { return sinks_; }

  /// Another type for the gradients; what they held is lost.
  void set_gradient_dtype(at::ScalarType dtype);
  /// Overwrites the buffers: one value a parameter, in their order, and the remainder of all (undefined beside fp32).
  /// InputError, with nothing changed, when shapes or types differ.
  void restore(const std::vector<at::Tensor>& values, const at::Tensor& remainder);
  /// fp32 masters, [n].
  at::Tensor masters() const;

 private:
  void make_gradients(at::ScalarType dtype);

  std::vector<NamedParameter> parameters_;
  std::vector<DecayRange> decay_ranges_;
  at::Tensor values_, remainder_, gradients_;
  tensor::GradientSinks sinks_;
};

}  // namespace gantry::train
