// Schemas of all operators, and what their kernels share.
#include "python/ops.h"

#include <torch/library.h>

#include "gantry/base/check.h"

namespace gantry::python {

kernels::Activation activation_of(std::string_view kind) {
  if (kind == "gelu") return kernels::Activation::kGeluErf;
  if (kind == "gelu_tanh") return kernels::Activation::kGeluTanh;
  if (kind == "silu") return kernels::Activation::kSilu;
  if (kind == "quick_gelu") return kernels::Activation::kQuickGelu;
  base::fail_input("activation: kind is '{}', expected gelu, gelu_tanh, silu or quick_gelu", kind);
}

kernels::DropoutRule rule_of(const OptionalTensor& seed, double p) {
  GANTRY_CHECK(p >= 0 && p <= 1, "dropout: p is {}, expected 0 to 1", p);
  if (p == 0) return {};
  GANTRY_CHECK(seed.has_value(), "dropout: p is {}, but there is no seed", p);
  GANTRY_CHECK(seed->numel() == 1 && seed->scalar_type() == at::kLong && seed->is_cpu(),
               "dropout: seed is {} {} on {}, expected one int64 on the CPU", c10::toString(seed->scalar_type()),
               c10::str(seed->sizes()), c10::str(seed->device()));
  return {.seed = static_cast<std::uint64_t>(*seed->const_data_ptr<std::int64_t>()),
          .stream = 0,
          .threshold = kernels::dropout_threshold(p)};
}

}  // namespace gantry::python

TORCH_LIBRARY(gantry, library) {
  library.def("activation(Tensor x, str kind) -> (Tensor y, Tensor side)");
  library.def("activation_backward(Tensor dy, Tensor y, Tensor side, str kind) -> Tensor");

  library.def(
      "norm(Tensor x, Tensor? weight, Tensor? bias, float eps, str kind, ScalarType dtype) -> (Tensor y, Tensor "
      "rstd)");
  library.def(
      "norm_backward(Tensor dy, Tensor y, Tensor rstd, Tensor? weight, Tensor? bias, str kind) -> (Tensor dx, "
      "Tensor dweight, Tensor dbias)");
  library.def(
      "dropout_add_norm(Tensor x, Tensor residual, Tensor? weight, Tensor? bias, Tensor? seed, float p, float eps, "
      "str kind, bool return_sum) -> (Tensor y, Tensor sum, Tensor rstd)");
  library.def(
      "dropout_add_norm_backward(Tensor? dy, Tensor? dsum, Tensor y, Tensor rstd, Tensor? weight, Tensor? bias, "
      "Tensor? seed, float p, str kind) -> (Tensor dx, Tensor dresidual, Tensor dweight, Tensor dbias)");

  // Lossy: int8 values and a bfloat16 scale per 64 of them.
  library.def("stash(Tensor x) -> (Tensor values, Tensor scales)");
  library.def("unstash(Tensor values, Tensor scales, SymInt[] sizes, ScalarType dtype) -> Tensor");

  library.def("dropout(Tensor x, Tensor seed, float p) -> Tensor");

  library.def(
      "attention(Tensor q, Tensor k, Tensor v, Tensor? mask, Tensor? key_mask, Tensor? seed, float p, float scale, "
      "bool causal, str keep) -> (Tensor out, Tensor kept)");
  library.def(
      "attention_backward(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor kept, Tensor? mask, "
      "Tensor? key_mask, Tensor? seed, float p, float scale, bool causal, bool stored, bool mask_gradient) -> "
      "(Tensor dq, Tensor dk, Tensor dv, Tensor dmask)");

  library.def(
      "mlp(Tensor x, Tensor weight1, Tensor? bias1, Tensor weight2, Tensor? bias2, str kind, str keep) -> (Tensor "
      "out, Tensor inner)");
  library.def(
      "mlp_backward(Tensor dout, Tensor? x, Tensor inner, Tensor weight1, Tensor? bias1, Tensor weight2, str kind, "
      "bool[5] wanted) -> (Tensor dx, Tensor dweight1, Tensor dbias1, Tensor dweight2, Tensor dbias2)");
  library.def(
      "gated_mlp(Tensor x, Tensor gate, Tensor up, Tensor down, str kind, str keep) -> (Tensor out, Tensor "
      "gate_up)");
  library.def(
      "gated_mlp_backward(Tensor dout, Tensor? x, Tensor gate_up, Tensor gate, Tensor up, Tensor down, str kind, "
      "bool[4] wanted) -> (Tensor dx, Tensor dgate, Tensor dup, Tensor ddown)");

  library.def(
      "linear_cross_entropy(Tensor hidden, Tensor weight, Tensor? bias, Tensor labels, int ignore_index, float "
      "smoothing, bool mean, bool[3] wanted) -> (Tensor loss, Tensor dhidden, Tensor dweight, Tensor dbias)");
  library.def(
      "linear_cross_entropy_losses(Tensor hidden, Tensor weight, Tensor? bias, Tensor labels, int ignore_index, "
      "float smoothing) -> Tensor");
  library.def(
      "linear_cross_entropy_losses_backward(Tensor dlosses, Tensor hidden, Tensor weight, Tensor? bias, Tensor "
      "labels, int ignore_index, float smoothing, bool[3] wanted) -> (Tensor dhidden, Tensor dweight, Tensor "
      "dbias)");
  // The first derivative of linear_cross_entropy, whose parts the forward pass has made: part * dloss.
  library.def("scaled_gradient(Tensor dloss, Tensor part) -> Tensor");
}
