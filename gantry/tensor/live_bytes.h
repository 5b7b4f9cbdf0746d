#pragma once
// Bytes of CPU tensors that this thread allocated and that still live; what an operator keeps for backward shows in it,
// each storage once.
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <atomic>
#include <cstdint>
#include <memory>

namespace gantry::tensor {

class LiveBytes {
 public:
  LiveBytes() : counter_(std::make_shared<Counter>()), guard_(c10::DebugInfoKind::PROFILER_STATE, counter_) {}
  std::int64_t now() const { return counter_->bytes; }
  /// The most since the start.
  std::int64_t peak() const { return counter_->peak; }

 private:
  struct Counter : c10::MemoryReportingInfoBase {
    void reportMemoryUsage(void* /*data*/, std::int64_t change, std::size_t /*allocated*/, std::size_t /*reserved*/,
                           c10::Device /*device*/) override {
      const std::int64_t total = bytes += change;
      std::int64_t seen = peak;
      while (total > seen && !peak.compare_exchange_weak(seen, total)) {
      }
    }
    bool memoryProfilingEnabled() const override { return true; }
    std::atomic<std::int64_t> bytes = 0, peak = 0;
  };

  std::shared_ptr<Counter> counter_;
  c10::DebugInfoGuard guard_;
};

}  // namespace gantry::tensor
