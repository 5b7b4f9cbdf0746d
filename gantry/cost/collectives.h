#pragma once
// Seconds of collectives and copies from the fitted links of a profile (Mist's code: least squares for each group
// shape).
#include <span>

#include "gantry/cost/profile.h"

namespace gantry::cost {

enum class Collective : std::uint8_t { kAllGather, kReduceScatter, kAllReduce };

/// A group: `per_node` devices on each of `nodes` nodes.
struct GroupShape {
  int nodes = 1;
  int per_node = 1;
  int size() const { return nodes * per_node; }
};

/// `bytes` is the size of the full tensor. f * (GB / bandwidth * (g-1)/g + latency) with f = 1 (all-gather), 1.1
/// (reduce-scatter), 2.1 (all-reduce); 0 for a group of one. A shape that was not measured takes the nearest measured
/// ones of the same number of nodes, else the slowest inter-node link (`estimated` is set). InputError when the profile
/// has no link between nodes at all.
double collective_s(const Profile& profile, Collective kind, double bytes, GroupShape group, bool* estimated = nullptr);
double copy_s(const Link& link, double bytes);  ///< 0 for no bytes
/// A micro-batch's boundary tensor between neighbouring stages.
double p2p_s(const Profile& profile, double bytes, bool across_nodes);

struct LinkSample {
  double bytes = 0;
  double seconds = 0;
};
/// Least squares of seconds = GB/bandwidth + latency with latency >= 0; InputError for fewer than two sizes.
Link fit_link(std::span<const LinkSample> samples);

}  // namespace gantry::cost
