#pragma once
// Seconds of collectives over groups of growing size, fitted to the profile's links.
#include <functional>
#include <string>
#include <vector>

#include "gantry/measure/group.h"
#include "gantry/measure/links.h"

namespace gantry::measure {

struct CollectiveOptions {
  std::vector<std::int64_t> sizes_bytes;  ///< of the full tensor; two or more
  int runs = 9;                           ///< of each, after one that does not count
};

struct MeasuredCollective {
  cost::GroupShape shape;
  cost::Link link;  ///< of the all-gather
  /// Mean of measured over predicted seconds where the link prices them (cost::collective_s). Far from 1: the factors
  /// 1.1 and 2.1 do not hold here.
  double reduce_scatter_ratio = 0;
  double all_reduce_ratio = 0;
};

/// Within a node 2, 4, 8 ... and all its ranks; with several nodes also 1, 2, 4 ... and all ranks of each.
std::vector<cost::GroupShape> shapes_to_measure(const RankPlace& place);

/// Every rank calls it with the same options; only rank 0 gets results. `world` is the group of all ranks, `before`
/// hears of each shape.
std::vector<MeasuredCollective> measure_collectives(MeetingPoint& meeting, Group& world,
                                                    const CollectiveOptions& options,
                                                    const std::function<void(cost::GroupShape)>& before);

}  // namespace gantry::measure
