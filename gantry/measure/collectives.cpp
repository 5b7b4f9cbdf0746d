#include "gantry/measure/collectives.h"

#include <algorithm>
#include <array>
#include <memory>

#include "gantry/base/check.h"

namespace gantry::measure {
namespace {

using cost::Collective;
using cost::GroupShape;

std::vector<int> powers_up_to(int first, int last) {
  std::vector<int> sizes;
  for (int size = first; size < last; size *= 2) sizes.push_back(size);
  if (last >= first) sizes.push_back(last);
  return sizes;
}

/// Slowest rank's seconds are what a collective takes; all ranks leave it about together, so rank 0's clock serves.
double median_seconds(Group& group, Collective kind, std::int64_t bytes, int runs) {
  std::vector<double> seconds;
  for (int i = 0; i <= runs; ++i) {
    check_interrupted();
    group.barrier();
    const double once = seconds_of([&] { group.run(kind, bytes); });
    if (i > 0) seconds.push_back(once);
  }
  return median(std::move(seconds));
}

constexpr std::array kKinds = {Collective::kAllGather, Collective::kReduceScatter, Collective::kAllReduce};
using KindSeconds = std::array<std::vector<double>, kKinds.size()>;

KindSeconds seconds_by_kind(Group& group, const CollectiveOptions& options, int runs) {
  KindSeconds seconds;
  for (const std::int64_t bytes : options.sizes_bytes) {
    for (std::size_t k = 0; k < kKinds.size(); ++k) {
      seconds[k].push_back(median_seconds(group, kKinds[k], bytes, runs));
    }
  }
  return seconds;
}

std::vector<cost::LinkSample> link_samples(const Group& group, const CollectiveOptions& options,
                                           const KindSeconds& seconds) {
  const double share = static_cast<double>(group.size() - 1) / group.size();
  std::vector<cost::LinkSample> samples;
  for (std::size_t i = 0; i < options.sizes_bytes.size(); ++i) {
    samples.push_back({static_cast<double>(options.sizes_bytes[i]) * share, seconds[0][i]});
  }
  return samples;
}

bool fits_a_link(const std::vector<cost::LinkSample>& samples) {
  try {
    cost::fit_link(samples);
    return true;
  } catch (const base::InputError&) {
    return false;
  }
}

MeasuredCollective measure_shape(Group& group, const CollectiveOptions& options) {
  // On a busy machine a small transfer may seem to take as long as a large one: then again, with more runs.
  constexpr int kAttempts = 4;
  KindSeconds seconds;
  std::vector<cost::LinkSample> samples;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    seconds = seconds_by_kind(group, options, options.runs << attempt);
    samples = link_samples(group, options, seconds);
    const std::int64_t good = group.rank() == 0 && fits_a_link(samples) ? 1 : 0;
    if (group.agree({good}).front() != 0) break;
  }
  if (group.rank() != 0) return {};
  MeasuredCollective result{.shape = group.shape(), .link = cost::fit_link(samples)};
  const auto ratio = [&](std::size_t k) {
    double sum = 0;
    for (std::size_t i = 0; i < options.sizes_bytes.size(); ++i) {
      const auto bytes = static_cast<double>(options.sizes_bytes[i]);
      sum += seconds[k][i] / cost::collective_s(result.link, kKinds[k], bytes, group.size());
    }
    return sum / static_cast<double>(options.sizes_bytes.size());
  };
  result.reduce_scatter_ratio = ratio(1);
  result.all_reduce_ratio = ratio(2);
  return result;
}

}  // namespace

std::vector<GroupShape> shapes_to_measure(const RankPlace& place) {
  std::vector<GroupShape> shapes;
  for (const int size : powers_up_to(2, place.per_node)) shapes.push_back({.nodes = 1, .per_node = size});
  if (place.nodes() == 1) return shapes;
  for (const int size : powers_up_to(1, place.per_node)) shapes.push_back({.nodes = place.nodes(), .per_node = size});
  return shapes;
}

std::vector<MeasuredCollective> measure_collectives(MeetingPoint& meeting, Group& world,
                                                    const CollectiveOptions& options,
                                                    const std::function<void(GroupShape)>& before) {
  GANTRY_CHECK(options.sizes_bytes.size() >= 2 && options.runs >= 1,
               "collectives must be measured at two sizes or more, once or more");
  std::vector<MeasuredCollective> results;
  for (const GroupShape shape : shapes_to_measure(meeting.place())) {
    if (before) before(shape);
    if (shape.size() == world.size()) {
      results.push_back(measure_shape(world, options));
    } else if (Group::contains(meeting.place(), shape)) {
      Group group(meeting, shape);
      results.push_back(measure_shape(group, options));
    }
    world.barrier();
  }
  if (world.rank() != 0) results.clear();
  return results;
}

}  // namespace gantry::measure
