#include "gantry/cost/collectives.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "gantry/base/check.h"

namespace gantry::cost {
namespace {

constexpr double kGb = 1024.0 * 1024.0 * 1024.0;

double kind_factor(Collective kind) {
  switch (kind) {
    case Collective::kAllGather: return 1.0;
    case Collective::kReduceScatter: return 1.1;
    case Collective::kAllReduce: return 2.1;
  }
  GANTRY_UNREACHABLE();
}

/// Between two measured links of the same number of nodes, linear in the devices a node; beyond them the nearest.
Link between(const CollectiveLink* below, const CollectiveLink* above, int per_node) {
  if (below == nullptr) return above->link;
  if (above == nullptr) return below->link;
  const double t = static_cast<double>(per_node - below->per_node) / (above->per_node - below->per_node);
  Link link = below->link;
  link.gb_per_s = std::lerp(below->link.gb_per_s, above->link.gb_per_s, t);
  link.latency_s = std::lerp(below->link.latency_s, above->link.latency_s, t);
  link.residual = std::max(below->link.residual, above->link.residual);
  link.provenance = std::max(below->link.provenance, above->link.provenance);
  return link;
}

/// The measured link of `nodes` nodes at `per_node` devices, or the neighbours' interpolation; nothing where no shape
/// of that many nodes was measured.
std::optional<Link> link_of_nodes(const Profile& profile, GroupShape group, bool& exact) {
  const CollectiveLink* below = nullptr;
  const CollectiveLink* above = nullptr;
  for (const auto& candidate : profile.collectives) {
    if (candidate.nodes != group.nodes || candidate.per_node * candidate.nodes < 2) continue;
    if (candidate.per_node <= group.per_node && (below == nullptr || candidate.per_node > below->per_node)) {
      below = &candidate;
    }
    if (candidate.per_node >= group.per_node && (above == nullptr || candidate.per_node < above->per_node)) {
      above = &candidate;
    }
  }
  if (below == nullptr && above == nullptr) return std::nullopt;
  exact = below == above;
  return exact ? below->link : between(below, above, group.per_node);
}

}  // namespace

CollectiveLinkChoice collective_link(const Profile& profile, GroupShape group) {
  GANTRY_CHECK(group.nodes >= 1 && group.per_node >= 1, "A group of {} nodes x {} devices has no collective",
               group.nodes, group.per_node);
  bool exact = false;
  if (const auto link = link_of_nodes(profile, group, exact)) return {*link, !exact};
  // No shape of that many nodes: the measured number of nodes next above (more nodes are slower), else the largest.
  int chosen = 0;
  for (const auto& candidate : profile.collectives) {
    if (candidate.per_node * candidate.nodes < 2 || (group.nodes > 1 && candidate.nodes < 2)) continue;
    const bool better =
        chosen == 0 ||
        (chosen < group.nodes ? candidate.nodes > chosen : candidate.nodes >= group.nodes && candidate.nodes < chosen);
    if (better) chosen = candidate.nodes;
  }
  GANTRY_CHECK(chosen != 0,
               "Profile {} holds no collective link {} and cannot price a group of {} nodes x {} devices; measure one "
               "with 'gantry profile' or add it to the profile's \"collectives\"",
               profile.name, group.nodes > 1 ? "between nodes" : "at all", group.nodes, group.per_node);
  if (const auto link = link_of_nodes(profile, {chosen, group.per_node}, exact)) return {*link, true};
  GANTRY_UNREACHABLE();
}

double collective_s(const Profile& profile, Collective kind, double bytes, GroupShape group, bool* estimated) {
  if (estimated != nullptr) *estimated = false;
  if (group.size() == 1) return 0;
  const auto [link, is_estimate] = collective_link(profile, group);
  if (estimated != nullptr) *estimated = is_estimate;
  if (bytes <= 0) return 0;
  return collective_s(link, kind, bytes, group.size());
}

double collective_s(const Link& link, Collective kind, double bytes, int devices) {
  const double share = static_cast<double>(devices - 1) / devices;
  return kind_factor(kind) * (bytes / kGb / link.gb_per_s * share + link.latency_s);
}

double copy_s(const Link& link, double bytes) { return bytes <= 0 ? 0 : bytes / kGb / link.gb_per_s + link.latency_s; }

double p2p_s(const Profile& profile, double bytes, bool across_nodes) {
  if (bytes <= 0) return 0;
  const auto& own = across_nodes ? profile.p2p_inter : profile.p2p_intra;
  const GroupShape pair = across_nodes ? GroupShape{2, 1} : GroupShape{1, 2};
  return copy_s(own ? *own : collective_link(profile, pair).link, bytes);
}

Link fit_link(std::span<const LinkSample> samples) {
  double n = 0, mean_x = 0, mean_y = 0;
  for (const auto& sample : samples) {
    GANTRY_CHECK(std::isfinite(sample.bytes) && sample.bytes > 0 && std::isfinite(sample.seconds) && sample.seconds > 0,
                 "Fit of a link: every sample needs positive bytes and seconds, found {} bytes in {} s", sample.bytes,
                 sample.seconds);
    mean_x += sample.bytes / kGb;
    mean_y += sample.seconds;
    n += 1;
  }
  GANTRY_CHECK(n >= 2, "Fit of a link: at least two sizes are needed, found {} sample(s)", samples.size());
  mean_x /= n;
  mean_y /= n;
  double xx = 0, xy = 0, spread = 0, origin_xx = 0, origin_xy = 0;
  for (const auto& sample : samples) {
    const double x = sample.bytes / kGb;
    xx += (x - mean_x) * (x - mean_x);
    xy += (x - mean_x) * (sample.seconds - mean_y);
    spread = std::max(spread, std::abs(sample.bytes - samples.front().bytes));
    origin_xx += x * x;
    origin_xy += x * sample.seconds;
  }
  GANTRY_CHECK(spread > 0, "Fit of a link: at least two sizes are needed, all {} samples have {} bytes", samples.size(),
               samples.front().bytes);
  double slope = xy / xx;
  double latency = mean_y - slope * mean_x;
  if (latency < 0) {
    latency = 0;
    slope = origin_xy / origin_xx;
  }
  GANTRY_CHECK(std::isfinite(slope) && slope > 0,
               "Fit of a link: larger sizes took no longer (slope {} s/GB); measure larger sizes or more repetitions",
               slope);
  Link link{.gb_per_s = 1 / slope, .latency_s = latency};
  for (const auto& sample : samples) {
    link.residual += std::abs(copy_s(link, sample.bytes) - sample.seconds) / sample.seconds / n;
  }
  return link;
}

}  // namespace gantry::cost
