#include "gantry/simulate/order.h"

#include <algorithm>
#include <cstdint>

namespace gantry::simulate {
namespace {

/// The k-th chunk of work that a stage runs in one direction.
Pass nth(std::int64_t k, bool backward, int group, int chunks) {
  const std::int64_t round = k / (std::int64_t{group} * chunks);
  const auto within = static_cast<int>(k % (std::int64_t{group} * chunks));
  const int chunk = within / group;
  return {backward, static_cast<int>(round * group + within % group), backward ? chunks - 1 - chunk : chunk};
}

}  // namespace

std::vector<Pass> pass_order(plan::Schedule schedule, int stages, int stage, int chunks, int accumulation) {
  const bool interleaved = schedule == plan::Schedule::kInterleaved && chunks > 1;
  const int group = interleaved ? stages : 1;
  const std::int64_t total = std::int64_t{accumulation} * chunks;
  const int after = stages - 1 - stage;
  const std::int64_t warmup = interleaved ? 2 * std::int64_t{after} + std::int64_t{chunks - 1} * stages : after;
  const std::int64_t first = std::min(warmup, total);
  std::vector<Pass> order;
  order.reserve(static_cast<std::size_t>(2 * total));
  for (std::int64_t k = 0; k < first; ++k) order.push_back(nth(k, false, group, chunks));
  for (std::int64_t k = first; k < total; ++k) {
    order.push_back(nth(k, false, group, chunks));
    order.push_back(nth(k - first, true, group, chunks));
  }
  for (std::int64_t k = total - first; k < total; ++k) order.push_back(nth(k, true, group, chunks));
  return order;
}

}  // namespace gantry::simulate
