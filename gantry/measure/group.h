#pragma once
// Collectives among processes: libtorch's Gloo process groups, met through its TCP store.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gantry/cost/collectives.h"
#include "gantry/measure/launch.h"

namespace gantry::measure {

/// The store of a run. Rank 0 serves it unless the launcher does. Error names the address when nobody answers there
/// within `timeout_s`.
class MeetingPoint {
 public:
  explicit MeetingPoint(const RankPlace& place, double timeout_s = 60);
  ~MeetingPoint();
  MeetingPoint(const MeetingPoint&) = delete;
  MeetingPoint& operator=(const MeetingPoint&) = delete;

  const RankPlace& place() const { return place_; }  ///< with the port that was chosen

 private:
  friend class Group;
  struct Impl;
  RankPlace place_;
  double timeout_s_;
  std::unique_ptr<Impl> impl_;
};

/// Some of the ranks: the first `per_node` of each of the first `nodes` nodes. Every member makes it, in the same order
/// of groups. A rank that vanishes makes the calls of the others fail.
class Group {
 public:
  static bool contains(const RankPlace& place, cost::GroupShape shape);
  Group(MeetingPoint& meeting, cost::GroupShape shape);
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  int rank() const { return rank_; }
  int size() const { return shape_.size(); }
  cost::GroupShape shape() const { return shape_; }

  void barrier();
  /// Rank 0's values, on every rank.
  std::vector<std::int64_t> agree(const std::vector<std::int64_t>& values);
  /// One collective over a tensor of about `bytes` in full (whole fp32 elements for every rank). Buffers stay from call
  /// to call. Not for two threads at once.
  void run(cost::Collective kind, std::int64_t bytes);

 private:
  struct Impl;
  cost::GroupShape shape_;
  int rank_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gantry::measure
