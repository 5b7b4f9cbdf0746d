// Feed-forward blocks as one operator each. The derivatives are those of kernels/mlp, without its writing over what was
// kept: an operator of the dispatcher leaves its arguments alone.
#include <torch/library.h>

#include <array>
#include <tuple>

#include "gantry/kernels/activation/activation_dispatch.h"
#include "gantry/kernels/mlp/gated_raw.h"
#include "gantry/kernels/mlp/parameter_gradients.h"
#include "python/ops.h"

namespace gantry::python {
namespace {

using namespace kernels;
constexpr auto kLayout = WeightLayout::kOutIn;

at::Tensor rows_of(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

bool keeps_inner(std::string_view keep) {
  GANTRY_CHECK(keep == "inner" || keep == "nothing" || keep == "int8",
               "mlp: keep is '{}', expected inner, nothing or int8", keep);
  return keep != "nothing";
}

// The block's input, which the gradients of the first weights need, and the first product itself unless it is kept.
at::Tensor input_rows(const OptionalTensor& x, const at::Tensor& weight, bool needed) {
  GANTRY_CHECK(x.has_value() || !needed, "mlp_backward: x is missing, which the gradients asked for need");
  return x.has_value() ? rows_of(*x) : at::empty({0, weight.size(1)}, weight.options());
}

at::Tensor shaped_as(const at::Tensor& rows, const at::Tensor& like) {
  auto sizes = like.sizes().vec();
  sizes.back() = rows.size(1);
  return at::_unsafe_view(rows, sizes);
}

at::Tensor column_sum(const at::Tensor& x) {
  return x.sum(0, false, x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat).to(x.scalar_type());
}

void check_types(const char* op, const at::Tensor& x, std::initializer_list<at::Tensor> weights) {
  GANTRY_CHECK(has_activation_kernel(x) && x.dim() >= 1 && x.size(-1) > 0,
               "{}: input is {} {}, expected float32, bfloat16, float16 or float64 and a last axis", op,
               c10::toString(x.scalar_type()), c10::str(x.sizes()));
  for (const at::Tensor& weight : weights) {
    GANTRY_CHECK(weight.dim() == 2 && weight.scalar_type() == x.scalar_type(),
                 "{}: weight is {} {}, expected two axes and the input's type, {}", op,
                 c10::toString(weight.scalar_type()), c10::str(weight.sizes()), c10::toString(x.scalar_type()));
  }
}

at::Tensor activated(const at::Tensor& x, Activation kind) {
  at::Tensor y = at::empty_like(x);
  dispatch_activation(x.scalar_type(), [&]<class Raw>() {
    for_blocks(x.numel(), activation_forward_kernel<Raw>(),
               ActivationForwardArgs<Raw>{
                   .kind = kind, .side = SideFlag::kNone, .x = raw_const<Raw>(x), .y = raw<Raw>(y), .flags = nullptr});
  });
  return y;
}

// dy becomes the gradient of x; f(x) comes back.
at::Tensor exact_backward(const at::Tensor& x, const at::Tensor& dy, Activation kind) {
  at::Tensor y = at::empty_like(x);
  dispatch_activation(x.scalar_type(), [&]<class Raw>() {
    for_blocks(
        x.numel(), activation_exact_backward_kernel<Raw>(),
        ActivationExactArgs<Raw>{
            .kind = kind, .x = raw_const<Raw>(x), .dy = raw_const<Raw>(dy), .dx = raw<Raw>(dy), .y = raw<Raw>(y)});
  });
  return y;
}

std::tuple<at::Tensor, at::Tensor> mlp_op(const at::Tensor& x, const at::Tensor& weight1, const OptionalTensor& bias1,
                                          const at::Tensor& weight2, const OptionalTensor& bias2, std::string_view kind,
                                          std::string_view keep) {
  const BelowAutograd below;
  check_types("mlp", x, {weight1, weight2});
  const Activation function = activation_of(kind);
  const at::Tensor inner = kernels::linear(rows_of(x), weight1, value_or_undefined(bias1)).contiguous();
  const at::Tensor out = kernels::linear(activated(inner, function), weight2, value_or_undefined(bias2)).contiguous();
  return {shaped_as(out, x), keeps_inner(keep) ? inner : absent(x)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> mlp_backward_op(
    const at::Tensor& gradient, const OptionalTensor& x, const at::Tensor& given_inner, const at::Tensor& weight1,
    const OptionalTensor& bias1, const at::Tensor& weight2, std::string_view kind, std::array<bool, 5> wanted) {
  const BelowAutograd below;
  check_types("mlp_backward", gradient, {weight1, weight2});
  const at::Tensor dout = rows_of(gradient), none = absent(gradient);
  const bool kept = given_inner.numel() != 0 || dout.size(0) == 0;
  const at::Tensor x2 = input_rows(x, weight1, wanted[1] || !kept);
  at::Tensor inner =
      kept ? given_inner.contiguous() : kernels::linear(x2, weight1, value_or_undefined(bias1)).contiguous();
  const at::Tensor dinner = input_gradient(weight2, dout, kLayout).contiguous();
  GANTRY_CHECK(inner.sizes() == dinner.sizes() && inner.scalar_type() == dinner.scalar_type(),
               "mlp_backward: inner {} {} does not fit gradient {}", c10::toString(inner.scalar_type()),
               c10::str(inner.sizes()), c10::str(gradient.sizes()));
  at::Tensor y = exact_backward(inner, dinner, activation_of(kind));
  inner.reset();
  const at::Tensor dweight2 = wanted[3] ? weight_gradient(weight2, y, dout, kLayout).contiguous() : none;
  y.reset();
  return {wanted[0] ? shaped_as(input_gradient(weight1, dinner, kLayout).contiguous(), gradient) : none,
          wanted[1] ? weight_gradient(weight1, x2, dinner, kLayout).contiguous() : none,
          wanted[2] ? column_sum(dinner) : none, dweight2, wanted[4] ? column_sum(dout) : none};
}

// ---- gated

at::Tensor gate_and_up(const at::Tensor& x2, const at::Tensor& gate, const at::Tensor& up) {
  return fused_linear(x2, {gate, up}).contiguous();
}

template <class Args>
void for_rows(std::int64_t rows, std::int64_t width, void (*kernel)(const Args&, std::int64_t, std::int64_t),
              const Args& args) {
  at::parallel_for(0, rows, row_grain(width), [&](std::int64_t begin, std::int64_t end) { kernel(args, begin, end); });
}

at::Tensor gated_forward_rows(const at::Tensor& gate_up, Activation kind) {
  const std::int64_t n = gate_up.size(1) / 2;
  at::Tensor z = at::empty({gate_up.size(0), n}, gate_up.options());
  dispatch_activation(gate_up.scalar_type(), [&]<class Raw>() {
    if constexpr (!std::is_same_v<Raw, double>) {
      for_rows<GatedForwardArgs<Raw>>(z.size(0), 2 * n, GANTRY_ISA_SELECT(gated_forward<Raw>),
                                      {.kind = kind, .gate_up = raw_const<Raw>(gate_up), .z = raw<Raw>(z), .n = n});
    }
  });
  return z;
}

// {gradient of gate_up, z}; z takes the place of dz.
std::pair<at::Tensor, at::Tensor> gated_backward_rows(const at::Tensor& gate_up, const at::Tensor& dz,
                                                      Activation kind) {
  const std::int64_t n = dz.size(1);
  at::Tensor dgate_up = at::empty_like(gate_up);
  dispatch_activation(gate_up.scalar_type(), [&]<class Raw>() {
    if constexpr (!std::is_same_v<Raw, double>) {
      for_rows<GatedBackwardArgs<Raw>>(dz.size(0), 2 * n, GANTRY_ISA_SELECT(gated_backward<Raw>),
                                       {.kind = kind,
                                        .gate_up = raw_const<Raw>(gate_up),
                                        .dz = raw_const<Raw>(dz),
                                        .dgate_up = raw<Raw>(dgate_up),
                                        .z = raw<Raw>(dz),
                                        .n = n});
    }
  });
  return {dgate_up, dz};
}

void check_gated(const char* op, const at::Tensor& x, const at::Tensor& gate, const at::Tensor& up,
                 const at::Tensor& down) {
  check_types(op, x, {gate, up, down});
  GANTRY_CHECK(x.scalar_type() != at::kDouble, "{}: there is no float64 kernel", op);
  GANTRY_CHECK(gate.sizes() == up.sizes() && gate.size(1) == x.size(-1) && down.size(1) == gate.size(0),
               "{}: input {}, gate {}, up {} and down {} do not fit", op, c10::str(x.sizes()), c10::str(gate.sizes()),
               c10::str(up.sizes()), c10::str(down.sizes()));
}

std::tuple<at::Tensor, at::Tensor> gated_mlp_op(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& up,
                                                const at::Tensor& down, std::string_view kind, std::string_view keep) {
  const BelowAutograd below;
  check_gated("gated_mlp", x, gate, up, down);
  const at::Tensor gate_up = gate_and_up(rows_of(x), gate, up);
  const at::Tensor out = kernels::linear(gated_forward_rows(gate_up, activation_of(kind)), down).contiguous();
  return {shaped_as(out, x), keeps_inner(keep) ? gate_up : absent(x)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> gated_mlp_backward_op(
    const at::Tensor& gradient, const OptionalTensor& x, const at::Tensor& kept, const at::Tensor& gate,
    const at::Tensor& up, const at::Tensor& down, std::string_view kind, std::array<bool, 4> wanted) {
  const BelowAutograd below;
  check_types("gated_mlp_backward", gradient, {gate, up, down});
  GANTRY_CHECK(gradient.scalar_type() != at::kDouble, "gated_mlp_backward: there is no float64 kernel");
  const at::Tensor dout = rows_of(gradient), none = absent(gradient);
  const bool given = kept.numel() != 0 || dout.size(0) == 0;
  const at::Tensor x2 = input_rows(x, gate, wanted[1] || wanted[2] || !given);
  const at::Tensor gate_up = given ? kept.contiguous() : gate_and_up(x2, gate, up);
  const at::Tensor dz = input_gradient(down, dout, kLayout).contiguous();
  GANTRY_CHECK(gate_up.sizes() == at::IntArrayRef({dz.size(0), 2 * dz.size(1)}) &&
                   gate_up.scalar_type() == dz.scalar_type() && gate.sizes() == up.sizes(),
               "gated_mlp_backward: gate_up {} {} does not fit gradient {}", c10::toString(gate_up.scalar_type()),
               c10::str(gate_up.sizes()), c10::str(gradient.sizes()));
  auto [dgate_up, z] = gated_backward_rows(gate_up, dz, activation_of(kind));
  const std::int64_t n = gate.size(0);
  const at::Tensor dgate = dgate_up.narrow(1, 0, n), dup = dgate_up.narrow(1, n, n);
  at::Tensor dx = none;
  if (wanted[0]) dx = shaped_as(matrix_product(dgate, gate).addmm_(dup, up).contiguous(), gradient);
  return {dx, wanted[1] ? weight_gradient(gate, x2, dgate, kLayout).contiguous() : none,
          wanted[2] ? weight_gradient(up, x2, dup, kLayout).contiguous() : none,
          wanted[3] ? weight_gradient(down, z, dout, kLayout).contiguous() : none};
}

}  // namespace
}  // namespace gantry::python

TORCH_LIBRARY_IMPL(gantry, CPU, library) {
  library.impl("mlp", gantry::python::mlp_op);
  library.impl("mlp_backward", gantry::python::mlp_backward_op);
  library.impl("gated_mlp", gantry::python::gated_mlp_op);
  library.impl("gated_mlp_backward", gantry::python::gated_mlp_backward_op);
}
