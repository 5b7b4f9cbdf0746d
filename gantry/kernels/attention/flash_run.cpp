// The tiled kernels on tensors: shapes, views, scratch and threads.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

#include "gantry/kernels/attention/attention_internal.h"
#include "gantry/kernels/attention/flash_bf16_raw.h"
#include "gantry/kernels/attention/stored_raw.h"
#include "gantry/kernels/common.h"
#include "gantry/kernels/cpu/last_bits.h"
#include "gantry/kernels/cpu/philox_raw.h"

namespace gantry::kernels {
namespace internal {
namespace {

template <class Raw>
HeadView<const Raw> const_view(const at::Tensor& x) {
  return {raw_const<Raw>(x), x.stride(0), x.stride(1), x.stride(2)};
}

template <class Raw>
HeadView<Raw> view(const at::Tensor& x) {
  return {raw<Raw>(x), x.stride(0), x.stride(1), x.stride(2)};
}

// A mask that kernels can read, and its strides in the whole of [B, heads, T, S].
struct ReadableMask {
  at::Tensor storage;
  ScoreMask view;
};

ReadableMask readable(const at::Tensor& mask, at::IntArrayRef sizes) {
  if (!mask.defined()) return {};
  const bool boolean = mask.scalar_type() == at::kBool;
  at::Tensor own = boolean ? mask.detach() : mask.detach().to(at::kFloat);
  if (own.dim() == 0 || own.size(-1) != sizes[3]) {  // one value for all keys
    std::vector<std::int64_t> shape = own.dim() == 0 ? std::vector<std::int64_t>{1} : own.sizes().vec();
    shape.back() = sizes[3];
    own = own.expand(shape);
  }
  if (own.stride(-1) != 1) own = own.contiguous();
  const at::Tensor whole = own.expand(sizes);
  ReadableMask result{own, {.batch = whole.stride(0), .head = whole.stride(1), .query = whole.stride(2)}};
  if (boolean) {
    result.view.visible = raw_const<std::uint8_t>(own);
  } else {
    result.view.added = raw_const<float>(own);
  }
  return result;
}

FlashShape make_shape(const FlashInputs& in, const AttentionOptions& o, const ScoreMask& mask) {
  return {.batch = in.q.size(0),
          .q_length = in.q.size(1),
          .k_length = in.k_length,
          .heads = in.q.size(2),
          .kv_heads = in.k.size(2),
          .head_dim = in.q.size(3),
          .scale = static_cast<float>(effective_scale(o)),
          .causal = o.causal,
          .row_starts = raw_const<std::int32_t>(o.row_starts),
          .key_mask = raw_const<std::uint8_t>(o.key_mask),
          .mask = mask,
          .dropout = o.dropout};
}

ReadableMask mask_of(const FlashInputs& in, const AttentionOptions& o) {
  return readable(o.mask, {in.q.size(0), in.q.size(2), in.q.size(1), in.k_length});
}

// Runs body(begin, end, scratch) over `items`, with one scratch area per thread, allocated once a call.
template <class Body>
void parallel(std::int64_t items, std::int64_t scratch_floats, const at::Tensor& like, Body body) {
  const at::Tensor scratch =
      at::empty({at::get_num_threads(), scratch_floats}, like.options().dtype(at::kFloat).requires_grad(false));
  at::parallel_for(0, items, 1, [&](std::int64_t begin, std::int64_t end) {
    body(begin, end, raw<float>(scratch) + at::get_thread_num() * scratch.size(1));
  });
}

// Args is FlashBackwardArgs or StoredBackwardArgs of Raw, `kept` its lse or probabilities.
template <template <class> class Args, class Raw, class Kept>
void backward(ScratchKernel<Args<Raw>> (*choose)(const FlashShape&), const FlashInputs& in, const FlashResult& result,
              const at::Tensor& dout, const AttentionOptions& o, const FlashGradients& to, const Kept* kept) {
  const ReadableMask mask = mask_of(in, o);
  const FlashShape shape = make_shape(in, o, mask.view);
  const ScratchKernel<Args<Raw>> kernel = choose(shape);
  parallel(shape.batch * shape.kv_heads, kernel.scratch, in.q,
           [&](std::int64_t begin, std::int64_t end, float* scratch) {
             kernel.run(Args<Raw>{shape, const_view<Raw>(in.q), const_view<Raw>(in.k), const_view<Raw>(in.v),
                                  const_view<Raw>(result.out), const_view<Raw>(dout), kept, view<Raw>(to.dq),
                                  view<Raw>(to.dk), view<Raw>(to.dv), scratch, raw<float>(to.dscores)},
                        begin, end);
           });
}

template <class Raw>
ScratchKernel<StoredBackwardArgs<Raw>> stored_backward_kernel(const FlashShape& shape) {
  return {GANTRY_ISA_SELECT(stored_backward<Raw>), flash_backward_scratch(shape)};
}

}  // namespace

double effective_scale(const AttentionOptions& options) {
  return options.scale != 0 ? options.scale : 1.0 / std::sqrt(static_cast<double>(options.head_dim));
}

bool flash_applies(const at::Tensor& q, const AttentionOptions& options) {
  return has_raw_kernel(q) && options.head_dim % 16 == 0;
}

FlashResult run_flash(const FlashInputs& in, const AttentionOptions& o, bool in_output) {
  const ReadableMask mask = mask_of(in, o);
  const FlashShape shape = make_shape(in, o, mask.view);
  const auto options = in.q.options().requires_grad(false);
  FlashResult result{at::empty({shape.batch, shape.q_length, shape.heads, shape.head_dim}, options), {}};
  if (!in_output || in.q.scalar_type() != at::kFloat || shape.head_dim < kLastBitsWidth) {
    result.kept = at::empty({shape.batch, shape.heads, shape.q_length}, options.dtype(at::kFloat));
  }
  dispatch_raw(in.q.scalar_type(), [&]<class Raw>() {
    const auto kernel = flash_forward_kernel<Raw>(shape);
    parallel(shape.batch * shape.heads, kernel.scratch, in.q,
             [&](std::int64_t begin, std::int64_t end, float* scratch) {
               kernel.run({shape, const_view<Raw>(in.q), const_view<Raw>(in.k), const_view<Raw>(in.v),
                           view<Raw>(result.out), raw<float>(result.kept), scratch},
                          begin, end);
             });
  });
  return result;
}

FlashResult run_stored(const FlashInputs& in, const AttentionOptions& o) {
  const ReadableMask mask = mask_of(in, o);
  const FlashShape shape = make_shape(in, o, mask.view);
  const auto options = in.q.options().requires_grad(false);
  FlashResult result{at::empty({shape.batch, shape.q_length, shape.heads, shape.head_dim}, options),
                     at::empty({shape.batch, shape.heads, shape.q_length, shape.k_length}, options)};
  dispatch_raw(in.q.scalar_type(), [&]<class Raw>() {
    const auto kernel = GANTRY_ISA_SELECT(stored_forward<Raw>);
    parallel(shape.batch * shape.heads, stored_forward_scratch(shape), in.q,
             [&](std::int64_t begin, std::int64_t end, float* scratch) {
               kernel({shape, const_view<Raw>(in.q), const_view<Raw>(in.k), const_view<Raw>(in.v),
                       view<Raw>(result.out), raw<Raw>(result.kept), scratch},
                      begin, end);
             });
  });
  return result;
}

void run_flash_backward(const FlashInputs& in, const FlashResult& result, const at::Tensor& dout,
                        const AttentionOptions& o, const FlashGradients& to) {
  dispatch_raw(in.q.scalar_type(), [&]<class Raw>() {
    backward<FlashBackwardArgs, Raw>(flash_backward_kernel<Raw>, in, result, dout, o, to,
                                     raw_const<float>(result.kept));
  });
}

void run_stored_backward(const FlashInputs& in, const FlashResult& result, const at::Tensor& dout,
                         const AttentionOptions& o, const FlashGradients& to) {
  dispatch_raw(in.q.scalar_type(), [&]<class Raw>() {
    backward<StoredBackwardArgs, Raw>(stored_backward_kernel<Raw>, in, result, dout, o, to,
                                      raw_const<Raw>(result.kept));
  });
}

void check_options(const AttentionOptions& o, std::int64_t batch, std::int64_t q_length, std::int64_t k_length) {
  const double scale = effective_scale(o);
  GANTRY_CHECK(std::isfinite(scale) && scale > 0, "attention: scale must be positive, got {}", scale);
  GANTRY_CHECK(o.dropout.threshold <= kDropAll, "attention: dropout threshold {} is above {}", o.dropout.threshold,
               kDropAll);
  if (!o.mask.defined()) return;
  GANTRY_CHECK(o.mask.scalar_type() == at::kBool || o.mask.is_floating_point(),
               "attention: a mask is bool (false hides a key) or floating (added to the scores), got {}",
               c10::toString(o.mask.scalar_type()));
  const std::vector<std::int64_t> sizes{batch, o.heads, q_length, k_length};
  bool fits = o.mask.dim() <= 4;
  for (std::int64_t i = 1; fits && i <= o.mask.dim(); ++i) {
    fits = o.mask.size(-i) == 1 || o.mask.size(-i) == sizes[static_cast<std::size_t>(4 - i)];
  }
  GANTRY_CHECK(fits, "attention: mask {} does not broadcast to {}", c10::str(o.mask.sizes()),
               c10::str(at::IntArrayRef(sizes)));
}

void save_options(torch::autograd::AutogradContext* ctx, const AttentionOptions& o) {
  ctx->saved_data["attention"] = std::vector<std::int64_t>{o.heads,
                                                           o.kv_heads,
                                                           o.head_dim,
                                                           o.causal ? 1 : 0,
                                                           static_cast<std::int64_t>(o.dropout.seed),
                                                           static_cast<std::int64_t>(o.dropout.stream),
                                                           o.dropout.threshold};
  ctx->saved_data["scale"] = o.scale;
}

AttentionOptions saved_options(torch::autograd::AutogradContext* ctx) {
  const auto n = ctx->saved_data["attention"].toIntVector();
  return {.heads = n[0],
          .kv_heads = n[1],
          .head_dim = n[2],
          .scale = ctx->saved_data["scale"].toDouble(),
          .causal = n[3] != 0,
          .dropout = {static_cast<std::uint64_t>(n[4]), static_cast<std::uint64_t>(n[5]),
                      static_cast<std::uint32_t>(n[6])}};
}

}  // namespace internal

at::Tensor attention_keep_mask(const DropoutRule& rule, std::int64_t batch, std::int64_t heads, std::int64_t q_length,
                               std::int64_t k_length) {
  at::Tensor keep = at::empty({batch, heads, q_length, k_length}, at::kBool);
  const FlashShape shape{.batch = batch,
                         .q_length = q_length,
                         .k_length = k_length,
                         .heads = heads,
                         .kv_heads = heads,
                         .head_dim = 16,
                         .scale = 1,
                         .causal = false,
                         .row_starts = nullptr,
                         .key_mask = nullptr};
  const auto kernel = GANTRY_ISA_SELECT(dropout_keep_bits);
  at::parallel_for(0, batch * heads * q_length, row_grain(k_length), [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::uint8_t> bits(static_cast<std::size_t>(k_length + 7) / 8);
    for (std::int64_t row = begin; row < end; ++row) {
      kernel(rule, 8 * attention_block(shape, 0, 0, row), k_length, bits.data());
      bool* to = keep.mutable_data_ptr<bool>() + row * k_length;
      for (std::int64_t j = 0; j < k_length; ++j) to[j] = (bits[static_cast<std::size_t>(j / 8)] >> (j % 8) & 1) != 0;
    }
  });
  return keep;
}

}  // namespace gantry::kernels
