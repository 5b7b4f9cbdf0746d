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

struct CollectiveLinkChoice {
  Link link;
  bool estimated = false;  ///< the shape itself was not measured
};
/// The all-gather link of a group of two or more devices. A shape that was not measured is estimated:
///   1. from the shapes of the same number of nodes: bandwidth and latency linear in the devices a node between the
///   next
///      smaller and the next larger one; outside the measured range the nearest;
///   2. where no shape has that many nodes: by rule 1 from the next larger measured number of nodes (more nodes are
///      slower), else from the largest. A group on several nodes never takes a link within one.
/// InputError when the profile has no link between nodes (or none at all) for such a group.
CollectiveLinkChoice collective_link(const Profile& profile, GroupShape group);

/// `bytes` is the size of the full tensor. f * (GB / bandwidth * (g-1)/g + latency) with f = 1 (all-gather), 1.1
/// (reduce-scatter), 2.1 (all-reduce); 0 for a group of one and for no bytes. `estimated` tells of collective_link.
double collective_s(const Profile& profile, Collective kind, double bytes, GroupShape group, bool* estimated = nullptr);
/// The same for a link at hand, among `devices` in all.
double collective_s(const Link& link, Collective kind, double bytes, int devices);
double copy_s(const Link& link, double bytes);  ///< GB / bandwidth + latency; 0 for no bytes
/// A micro-batch's boundary tensor between neighbouring stages: the profile's own link, else that of a collective of
/// two devices, whose bandwidth is that of what crosses the wire.
double p2p_s(const Profile& profile, double bytes, bool across_nodes);

struct LinkSample {
  double bytes = 0;
  double seconds = 0;
};
/// Least squares of seconds = GB/bandwidth + latency with latency >= 0; `residual` is the mean relative error. For
/// collectives of g devices pass the bytes that cross: (g-1)/g of the tensor. InputError for fewer than two sizes, for
/// values that are not positive, and where time does not grow with size.
Link fit_link(std::span<const LinkSample> samples);

}  // namespace gantry::cost
