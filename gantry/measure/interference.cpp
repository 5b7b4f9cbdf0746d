#include "gantry/measure/interference.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <barrier>
#include <chrono>
#include <cmath>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <thread>

#include "gantry/kernels/gemm/gemm.h"
#include "gantry/measure/timing.h"

namespace gantry::measure {
namespace {

using Clock = std::chrono::steady_clock;
using Levels = std::array<int, cost::kChannels>;  // 0 none, 1 short, 2 long

constexpr std::int64_t kMatrix = 384;
constexpr std::int64_t kCopyBytes = 1 << 20;
constexpr std::int64_t kCopyPoolBytes = 64 << 20;
constexpr std::int64_t kCollectiveBytes = 1 << 20;
constexpr int kCalibrationRuns = 9;

/// Some pages after others, so that copies are not served by the caches.
class CopyWork {
 public:
  CopyWork() : from_(at::ones({kCopyPoolBytes}, at::kByte)), to_(at::ones({kCopyPoolBytes}, at::kByte)) {}
  void once() {
    std::memcpy(static_cast<char*>(to_.data_ptr()) + offset_, static_cast<const char*>(from_.data_ptr()) + offset_,
                kCopyBytes);
    offset_ = (offset_ + kCopyBytes) % kCopyPoolBytes;
  }

 private:
  at::Tensor from_, to_;
  std::int64_t offset_ = 0;
};

class Channels {
 public:
  explicit Channels(Group* world)
      : world_(world),
        a_(at::randn({kMatrix, kMatrix})),
        b_(at::randn({kMatrix, kMatrix})),
        c_(at::empty({kMatrix, kMatrix})) {}

  /// Chooses how often each channel repeats its unit of work, the same on all ranks.
  void calibrate(const InterferenceOptions& options) {
    std::vector<std::int64_t> counts;
    for (int c = 0; c < cost::kChannels; ++c) {
      std::vector<double> seconds;
      for (int i = 0; i < kCalibrationRuns && has(c); ++i)
        seconds.push_back(seconds_of([&] { unit(static_cast<std::size_t>(c)); }));
      const double unit_s = has(c) ? std::max(1e-6, median(std::move(seconds))) : 1;
      const std::int64_t few = std::clamp<std::int64_t>(std::llround(options.short_s / unit_s), 1, 100'000);
      const std::int64_t many = std::clamp<std::int64_t>(std::llround(options.long_s / unit_s), few + 1, 300'000);
      counts.insert(counts.end(), {0, few, many});
    }
    counts_ = world_ != nullptr ? world_->agree(counts) : counts;
  }

  bool has(int channel) const { return world_ != nullptr || channel != static_cast<int>(cost::Channel::kCollective); }

  /// Seconds from the common start of the busy channels until the last one is done.
  double together(const Levels& levels) {
    if (world_ != nullptr) world_->barrier();
    std::barrier start(std::ranges::count_if(levels, [](int level) { return level > 0; }));
    std::array<Span, cost::kChannels> spans;
    const auto work = [&](std::size_t c) {
      try {
        start.arrive_and_wait();
        spans[c].begin = Clock::now();
        const std::int64_t count = counts_[3 * c + static_cast<std::size_t>(levels[c])];
        for (std::int64_t i = 0; i < count; ++i) unit(c);
        spans[c].end = Clock::now();
      } catch (...) {
        spans[c].error = std::current_exception();
      }
    };
    {
      std::vector<std::jthread> threads;
      for (std::size_t c = 1; c < cost::kChannels; ++c) {
        if (levels[c] > 0) threads.emplace_back(work, c);
      }
      if (levels[0] > 0) work(0);  // here, where the pool of OpenMP's threads stands ready
    }
    Clock::time_point begin = Clock::time_point::max(), end = Clock::time_point::min();
    for (std::size_t c = 0; c < cost::kChannels; ++c) {
      if (levels[c] == 0) continue;
      if (spans[c].error != nullptr) std::rethrow_exception(spans[c].error);
      begin = std::min(begin, spans[c].begin);
      end = std::max(end, spans[c].end);
    }
    return std::chrono::duration<double>(end - begin).count();
  }

 private:
  struct Span {
    Clock::time_point begin, end;
    std::exception_ptr error;
  };

  void unit(std::size_t channel) {
    switch (static_cast<cost::Channel>(channel)) {
      case cost::Channel::kCompute: kernels::matrix_product_out(c_, a_, b_); return;
      case cost::Channel::kCollective: world_->run(cost::Collective::kAllGather, kCollectiveBytes); return;
      case cost::Channel::kCopyIn: in_.once(); return;
      case cost::Channel::kCopyOut: out_.once(); return;
    }
  }

  Group* world_;
  at::Tensor a_, b_, c_;
  CopyWork in_, out_;
  std::vector<std::int64_t> counts_;
};

std::vector<Levels> combinations(const Channels& channels) {
  std::vector<Levels> all;
  for (int code = 1; code < 81; ++code) {
    const Levels levels{code % 3, code / 3 % 3, code / 9 % 3, code / 27};
    bool possible = true;
    for (int c = 0; c < cost::kChannels; ++c) {
      possible = possible && (levels[static_cast<std::size_t>(c)] == 0 || channels.has(c));
    }
    if (possible) all.push_back(levels);
  }
  return all;
}

int busy(const Levels& levels) {
  return static_cast<int>(std::ranges::count_if(levels, [](int level) { return level > 0; }));
}

/// Samples of the medians; stand-alone seconds are those of the same work by itself.
std::vector<cost::OverlapSample> samples_of(const std::map<Levels, double>& medians, cost::GroupShape shape) {
  std::vector<cost::OverlapSample> samples;
  for (const auto& [levels, seconds] : medians) {
    if (busy(levels) < 2) continue;
    cost::OverlapSample sample{.together_s = seconds, .per_node = shape.per_node, .nodes = shape.nodes};
    for (std::size_t c = 0; c < cost::kChannels; ++c) {
      Levels alone{};
      alone[c] = levels[c];
      if (levels[c] > 0) sample.alone_s[c] = medians.at(alone);
    }
    samples.push_back(sample);
  }
  return samples;
}

template <class Predict>
double error_of(const std::vector<cost::OverlapSample>& samples, const Predict& predict) {
  double sum = 0;
  for (const cost::OverlapSample& sample : samples) {
    sum += std::abs(predict(sample.alone_s) - sample.together_s) / sample.together_s;
  }
  return sum / static_cast<double>(samples.size());
}

MeasuredInterference fit(std::vector<cost::OverlapSample> samples) {
  std::vector<cost::OverlapSample> halves[2];
  for (std::size_t i = 0; i < samples.size(); ++i) halves[i % 2].push_back(samples[i]);
  MeasuredInterference result;
  for (const int own : {0, 1}) {
    result.held_out_error +=
        cost::mean_relative_error(halves[1 - own], cost::fit_factors(halves[own], cost::Factors())) / 2;
  }
  result.factors = cost::fit_factors(samples, cost::Factors());
  result.residual = cost::mean_relative_error(samples, result.factors);
  result.sum_error = error_of(samples, [](const auto& alone) { return alone[0] + alone[1] + alone[2] + alone[3]; });
  result.max_error = error_of(samples, [](const auto& alone) { return *std::ranges::max_element(alone); });
  result.samples = std::move(samples);
  return result;
}

}  // namespace

MeasuredInterference measure_interference(Group* world, const InterferenceOptions& options,
                                          const std::function<void(int)>& before) {
  Channels channels(world);
  channels.calibrate(options);
  const std::vector<Levels> all = combinations(channels);
  std::map<Levels, std::vector<double>> seconds;
  for (int round = 0; round < options.repeats; ++round) {
    if (before) before(round);
    for (const Levels& levels : all) {
      check_interrupted();
      seconds[levels].push_back(channels.together(levels));
    }
  }
  if (world != nullptr && world->rank() != 0) return {};
  std::map<Levels, double> medians;
  for (auto& [levels, values] : seconds) medians[levels] = median(std::move(values));
  return fit(samples_of(medians, world != nullptr ? world->shape() : cost::GroupShape()));
}

}  // namespace gantry::measure
