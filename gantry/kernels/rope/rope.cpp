#include "gantry/kernels/rope/rope.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "gantry/kernels/common.h"
#include "gantry/kernels/rope/rope_raw.h"

namespace gantry::kernels {
namespace {

void rope_reference_(const at::Tensor& x, const at::Tensor& positions, const at::Tensor& cosine, const at::Tensor& sine,
                     bool inverse) {
  const at::Tensor c = cosine.index_select(0, positions).unsqueeze(1);
  const at::Tensor s = sine.index_select(0, positions).unsqueeze(1) * (inverse ? -1.0 : 1.0);
  const auto halves = x.to(at::promote_types(x.scalar_type(), at::kFloat)).chunk(2, -1);
  x.copy_(at::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1));
}

}  // namespace

void rope_(const at::Tensor& x, const at::Tensor& positions, const at::Tensor& cosine, const at::Tensor& sine,
           bool inverse) {
  GANTRY_CHECK(x.dim() == 3 && x.size(2) == 2 * cosine.size(1) && x.stride(2) == 1 &&
                   (x.size(1) == 1 || x.stride(1) == x.size(2)),
               "rope: input {} does not fit tables of {} frequencies", c10::str(x.sizes()), cosine.size(1));
  GANTRY_CHECK(cosine.sizes() == sine.sizes() && cosine.scalar_type() == at::kFloat && cosine.is_contiguous() &&
                   sine.scalar_type() == at::kFloat && sine.is_contiguous(),
               "rope: expected two contiguous Float tables of one shape, got {} {} and {} {}",
               c10::toString(cosine.scalar_type()), c10::str(cosine.sizes()), c10::toString(sine.scalar_type()),
               c10::str(sine.sizes()));
  GANTRY_CHECK(positions.scalar_type() == at::kLong && positions.dim() == 1 && positions.size(0) == x.size(0),
               "rope: expected {} int64 positions, got {}", x.size(0), c10::str(positions.sizes()));
  const at::NoGradGuard no_grad;
  if (!has_raw_kernel(x)) return rope_reference_(x, positions, cosine, sine, inverse);
  if (positions.numel() == 0) return;
  const at::Tensor index = positions.contiguous();
  // A plain loop: this runs for every layer of every decoded token, where two ATen reductions would cost more than the
  // rest.
  for (std::int64_t i = 0; i < index.numel(); ++i) {
    const std::int64_t position = raw_const<std::int64_t>(index)[i];
    GANTRY_CHECK(position >= 0 && position < cosine.size(0),
                 "rope: position {} is outside the {} positions of the table", position, cosine.size(0));
  }
  dispatch_raw(x.scalar_type(), [&]<class Raw>() {
    const RopeArgs<Raw> args{.x = raw<Raw>(x),
                             .row_stride = x.stride(0),
                             .heads = x.size(1),
                             .head_dim = x.size(2),
                             .positions = raw_const<std::int64_t>(index),
                             .cosine = raw_const<float>(cosine),
                             .sine = raw_const<float>(sine),
                             .inverse = inverse};
    const auto kernel = GANTRY_ISA_SELECT(rope<Raw>);
    const std::int64_t grain = row_grain(x.size(1) * x.size(2));
    at::parallel_for(0, x.size(0), grain, [&](std::int64_t begin, std::int64_t end) { kernel(args, begin, end); });
  });
}

}  // namespace gantry::kernels
