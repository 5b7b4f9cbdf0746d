#pragma once
// A fork-join helper for torch-free code (loading, tokenising, file parsing). Tensor code uses at::parallel_for, so
// that one process never runs two competing pools in a hot loop.
#include <cstdint>
#include <functional>

namespace gantry::base {

/// Processors this process may use (its affinity mask), at least 1; GANTRY_THREADS overrides.
int available_threads();

/// Calls body(begin, end) on disjoint ranges that cover [0, count), from up to available_threads() threads; ranges are
/// handed out dynamically in pieces of about `grain`. The first exception thrown by a body is rethrown here.
void parallel_ranges(std::int64_t count, std::int64_t grain,
                     const std::function<void(std::int64_t, std::int64_t)>& body);

}  // namespace gantry::base
