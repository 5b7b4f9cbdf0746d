#include "gantry/kernels/gemm/gemm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <optional>

#include "gantry/kernels/common.h"
#include "gantry/kernels/gemm/gemm_raw.h"

namespace gantry::kernels {
namespace {

// Below these, packing costs what the faster inner loop gains.
constexpr std::int64_t kMinExtent = 64, kMinMultiplications = std::int64_t{1} << 24;

struct Operand {
  const float* data;
  std::int64_t stride;
  bool transposed;
};

// Absent where neither axis has unit stride, or where rows overlap (an expanded gradient).
std::optional<Operand> operand_of(const at::Tensor& x) {
  if (x.stride(1) == 1 && x.stride(0) >= x.size(1)) return Operand{raw_const<float>(x), x.stride(0), false};
  if (x.stride(0) == 1 && x.stride(1) >= x.size(0)) return Operand{raw_const<float>(x), x.stride(1), true};
  return std::nullopt;
}

// A kernel, and how it wants C to be cut.
struct Kernel {
  decltype(&scalar::gemm) run;
  std::int64_t row_unit, column_unit;  // of its tiles, so that only the last part has incomplete ones
  std::int64_t columns;                // of a packed block of B
};

Kernel kernel() {
#if defined(__x86_64__)
  if (base::isa() == base::Isa::kAmx) return {amx::gemm, 32, 32, kSplitColumns};
#endif
  return {GANTRY_ISA_SELECT(gemm), 8, 48, kGemmColumns};
}

float* scratch() {
  struct Free {
    void operator()(float* memory) const { ::operator delete (memory, std::align_val_t{64}); }
  };
  thread_local const std::unique_ptr<float, Free> memory(
      static_cast<float*>(::operator new (kGemmScratch * sizeof(float), std::align_val_t{64})));
  return memory.get();
}

// How many parts C is cut into along each axis.
struct Grid {
  std::int64_t m, n;
};

// Each part packs the A of its rows and the B of its columns. B costs more, so wide products are cut by columns, into
// as many parts as there are packed blocks of B anyway. Narrow ones are cut by rows: there, parts side by side write
// cache lines so close that prefetching takes them from each other. Parts with few rows would not repay packing B,
// above all a transposed one.
Grid plan_grid(const Kernel& kernel, std::int64_t m, std::int64_t n, bool b_transposed) {
  constexpr std::int64_t kWide = 1024, kTall = 1024;
  const std::int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  if (threads == 1) return {1, 1};
  const auto whole_rounds = [threads](std::int64_t parts) { return (parts + threads - 1) / threads * threads; };
  if (n >= threads * kWide) return {1, whole_rounds((n + kernel.columns - 1) / kernel.columns)};
  std::int64_t rows = std::clamp<std::int64_t>(m / (b_transposed ? 224 : 192), 1, threads);
  while (threads % rows != 0) --rows;
  // Tall ones into more parts than threads, for the sake of balance; they repay packing B again.
  if (rows == threads) return {std::clamp(m / kTall / threads * threads, threads, 8 * threads), 1};
  return {rows, threads / rows};
}

// Where part `i` of `parts` begins: whole units each, equal but for one.
std::int64_t cut(std::int64_t extent, std::int64_t i, std::int64_t parts, std::int64_t unit) {
  return std::min(extent, (extent + unit - 1) / unit * i / parts * unit);
}

bool fits(const at::Tensor& c, std::int64_t m, std::int64_t n) {
  return c.is_cpu() && c.scalar_type() == at::kFloat && c.dim() == 2 && c.size(0) == m && c.size(1) == n &&
         c.stride(1) == 1 && c.stride(0) >= n;
}

bool plain_bias(const at::Tensor& bias, std::int64_t n) {
  return !bias.defined() ||
         (bias.dim() == 1 && bias.size(0) == n && bias.is_contiguous() && bias.scalar_type() == at::kFloat);
}

void run_gemm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c, const float* bias, bool accumulate) {
  const Operand left = *operand_of(a), right = *operand_of(b);
  const GemmArgs args{.a = left.data,
                      .a_stride = left.stride,
                      .a_transposed = left.transposed,
                      .b = right.data,
                      .b_stride = right.stride,
                      .b_transposed = right.transposed,
                      .c = raw<float>(c),
                      .c_stride = c.stride(0),
                      .k = a.size(1),
                      .accumulate = accumulate,
                      .bias = bias};
  const std::int64_t m = c.size(0), n = c.size(1);
  const Kernel own = kernel();
  const Grid grid = plan_grid(own, m, n, right.transposed);
  // Threads take the next part when they are done with one, so that a disturbed one does less.
  const std::int64_t parts = grid.m * grid.n;
  std::atomic<std::int64_t> next = 0;
  at::parallel_for(0, std::min<std::int64_t>(parts, at::get_num_threads()), 1, [&](std::int64_t, std::int64_t) {
    for (std::int64_t part = next++; part < parts; part = next++) {
      const std::int64_t row = part / grid.n, column = part % grid.n;
      own.run(args,
              {cut(m, row, grid.m, own.row_unit), cut(m, row + 1, grid.m, own.row_unit),
               cut(n, column, grid.n, own.column_unit), cut(n, column + 1, grid.n, own.column_unit)},
              scratch());
    }
  });
}

}  // namespace

bool gemm_applies(const at::Tensor& a, const at::Tensor& b) {
  const auto fp32 = [](const at::Tensor& x) { return x.is_cpu() && x.scalar_type() == at::kFloat && x.dim() == 2; };
  if (base::isa() == base::Isa::kScalar || !fp32(a) || !fp32(b)) return false;
  const std::int64_t m = a.size(0), k = a.size(1), n = b.size(1);
  if (b.size(0) != k) return false;  // at::mm has the message
  return std::min({m, n, k}) >= kMinExtent && m * n >= kMinMultiplications / k && operand_of(a) && operand_of(b);
}

at::Tensor matrix_product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias) {
  if (!gemm_applies(a, b) || !plain_bias(bias, b.size(1))) return bias.defined() ? at::addmm(bias, a, b) : at::mm(a, b);
  at::Tensor c = at::empty({a.size(0), b.size(1)}, a.options());
  run_gemm(a, b, c, raw_const<float>(bias), false);
  return c;
}

void matrix_product_out(at::Tensor c, const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias) {
  if (gemm_applies(a, b) && fits(c, a.size(0), b.size(1)) && plain_bias(bias, b.size(1))) {
    run_gemm(a, b, c, raw_const<float>(bias), false);
  } else if (bias.defined()) {
    at::addmm_out(c, bias, a, b);
  } else {
    at::mm_out(c, a, b);
  }
}

void add_matrix_product(tensor::GradientSlot& slot, const at::Tensor& a, const at::Tensor& b) {
  if (!gemm_applies(a, b) || !fits(slot.gradient, a.size(0), b.size(1))) return accumulate_product(slot, a, b);
  run_gemm(a, b, slot.gradient, nullptr, slot.written);
  slot.written = true;
}

}  // namespace gantry::kernels
