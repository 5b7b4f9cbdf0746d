#include "gantry/measure/links.h"

#include <ATen/ATen.h>
#include <torch/cuda.h>

#include <algorithm>
#include <cstring>

#include "gantry/base/check.h"
#include "gantry/base/timer.h"
#include "gantry/kernels/adamw/adamw.h"
#include "gantry/kernels/gemm/gemm.h"
#include "gantry/kernels/stream/stream.h"

namespace gantry::measure {
namespace {

// Each copy takes other pages, so that the last copies are not in the caches.
constexpr std::int64_t kLinkPoolBytes = 128 << 20;

void synchronise(at::Device device) {
  if (device.is_cuda()) torch::cuda::synchronize();
}

at::Tensor pool(std::int64_t bytes, at::Device device, bool pinned) {
  const auto options = at::TensorOptions().dtype(at::kByte).device(device);
  at::Tensor result = at::empty({bytes}, pinned ? options.pinned_memory(true) : options);
  return result.fill_(1);  // its pages are there
}

class Copier {
 public:
  Copier(CopyDirection direction, at::Device device, std::int64_t bytes)
      : device_(device), bytes_(std::max(bytes, kLinkPoolBytes)) {
    const bool cuda = device.is_cuda();
    host_ = pool(bytes_, at::kCPU, cuda);
    near_ = pool(bytes_, device, false);
    from_ = direction == CopyDirection::kIn ? host_ : near_;
    to_ = direction == CopyDirection::kIn ? near_ : host_;
  }

  double copy(std::int64_t bytes) {
    if (offset_ + bytes > bytes_) offset_ = 0;
    const base::Timer timer;
    if (device_.is_cuda()) {
      to_.narrow(0, offset_, bytes).copy_(from_.narrow(0, offset_, bytes), true);
      synchronise(device_);
    } else {
      std::memcpy(static_cast<char*>(to_.data_ptr()) + offset_, static_cast<const char*>(from_.data_ptr()) + offset_,
                  static_cast<std::size_t>(bytes));
    }
    offset_ += bytes;
    return timer.seconds();
  }

 private:
  at::Device device_;
  std::int64_t bytes_;
  std::int64_t offset_ = 0;
  at::Tensor host_, near_, from_, to_;
};

double best(const std::function<double()>& run, const TimingOptions& options) {
  double least = 1e30;
  repeat_seconds(
      [&] {
        const double seconds = run();
        least = std::min(least, seconds);
        return seconds;
      },
      options);
  return least;
}

}  // namespace

MeasuredLink measure_copies(CopyDirection direction, at::Device device, const std::vector<std::int64_t>& sizes_bytes,
                            const TimingOptions& options) {
  GANTRY_CHECK(sizes_bytes.size() >= 2, "copies must be measured at two sizes or more, found {}", sizes_bytes.size());
  Copier copier(direction, device, *std::ranges::max_element(sizes_bytes));
  MeasuredLink result;
  for (const std::int64_t bytes : sizes_bytes) {
    const Timing timing = repeat_seconds([&] { return copier.copy(bytes); }, options);
    result.samples.push_back({static_cast<double>(bytes), timing.median_s});
  }
  result.link = cost::fit_link(result.samples);
  return result;
}

double memory_bytes_per_s(at::Device device, std::int64_t bytes, const TimingOptions& options) {
  if (!device.is_cuda()) {
    const at::Tensor x = at::ones({bytes / 4}, at::kFloat);
    return static_cast<double>(bytes) / best([&] { return seconds_of([&] { kernels::stream_sum(x); }); }, options);
  }
  const at::Tensor from = pool(bytes, device, false);
  at::Tensor to = pool(bytes, device, false);
  const double seconds = best(
      [&] {
        return seconds_of([&] {
          to.copy_(from);
          synchronise(device);
        });
      },
      options);
  return 2 * static_cast<double>(bytes) / seconds;
}

double matrix_flops_per_s(at::ScalarType dtype, at::Device device, std::int64_t size, const TimingOptions& options) {
  const auto tensor_options = at::TensorOptions().dtype(dtype).device(device);
  const at::Tensor a = at::randn({size, size}, tensor_options), b = at::randn({size, size}, tensor_options);
  const double seconds = best(
      [&] {
        return seconds_of([&] {
          kernels::matrix_product(a, b);
          synchronise(device);
        });
      },
      options);
  return 2 * static_cast<double>(size) * static_cast<double>(size) * static_cast<double>(size) / seconds;
}

double host_update_elements_per_s(std::int64_t elements, const TimingOptions& options) {
  const at::Tensor weight = at::ones({elements}), gradient = at::full({elements}, 1e-3);
  const at::Tensor first = at::zeros({elements}), second = at::zeros({elements});
  const Timing timing = repeat_seconds(
      [&] { return seconds_of([&] { kernels::adamw_(weight, gradient, first, second, {}); }); }, options);
  return static_cast<double>(elements) / timing.median_s;
}

}  // namespace gantry::measure
