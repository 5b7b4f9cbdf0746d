#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "gantry/base/check.h"
#include "gantry/plan/verify.h"

namespace gantry::plan {
namespace {

// Free devices of a cluster by node.
class FreeDevices {
 public:
  explicit FreeDevices(const cost::Cluster& cluster)
      : per_node_(cluster.devices_per_node),
        used_(static_cast<std::size_t>(cluster.nodes) * static_cast<std::size_t>(cluster.devices_per_node)) {
    for (int node = 0; node < cluster.nodes; ++node) free_.emplace(per_node_, node);
  }

  void take(int rank, std::size_t stage) {
    GANTRY_CHECK(rank >= 0 && static_cast<std::size_t>(rank) < used_.size(),
                 "stages[{}]: rank {} is not one of the cluster's {} devices", stage, rank, used_.size());
    GANTRY_CHECK(!used_[static_cast<std::size_t>(rank)], "stages[{}]: rank {} is given twice", stage, rank);
    const int node = rank / per_node_;
    int left = 0;
    for (int device = 0; device < per_node_; ++device) left += used_[index(node, device)] ? 0 : 1;
    free_.erase({left, node});
    used_[static_cast<std::size_t>(rank)] = true;
    if (left > 1) free_.emplace(left - 1, node);
  }

  // The fullest nodes that hold the mesh; false where there are too few.
  bool place(const cost::Mesh& mesh, std::vector<int>& ranks) {
    std::vector<std::pair<int, int>> nodes;  // free devices, node
    for (auto at = free_.lower_bound({mesh.per_node, 0}); at != free_.end(); ++at) {
      if (static_cast<int>(nodes.size()) == mesh.nodes) break;
      nodes.push_back(*at);
    }
    if (static_cast<int>(nodes.size()) < mesh.nodes) return false;
    std::ranges::sort(nodes, {}, &std::pair<int, int>::second);
    for (const auto& [left, node] : nodes) {
      free_.erase({left, node});
      int missing = mesh.per_node;
      for (int device = 0; missing > 0; ++device) {
        if (used_[index(node, device)]) continue;
        used_[index(node, device)] = true;
        ranks.push_back(node * per_node_ + device);
        --missing;
      }
      if (left > mesh.per_node) free_.emplace(left - mesh.per_node, node);
    }
    return true;
  }

 private:
  std::size_t index(int node, int device) const {
    return static_cast<std::size_t>(node) * static_cast<std::size_t>(per_node_) + static_cast<std::size_t>(device);
  }

  int per_node_;
  std::vector<bool> used_;
  std::set<std::pair<int, int>> free_;  // free devices, node
};

}  // namespace

void assign_ranks(TrainPlan& plan, const cost::Cluster& cluster) {
  GANTRY_CHECK(cluster.nodes >= 1 && cluster.devices_per_node >= 1 &&
                   std::int64_t{cluster.nodes} * cluster.devices_per_node <= kMaxDevices,
               "cluster '{}': {} nodes of {} devices are not 1 to {} devices", cluster.name, cluster.nodes,
               cluster.devices_per_node, kMaxDevices);
  FreeDevices free(cluster);
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    if (plan.stages[i].ranks.empty()) order.push_back(i);
    for (const int rank : plan.stages[i].ranks) free.take(rank, i);
  }
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) {
    const cost::Mesh& first = plan.stages[a].mesh;
    const cost::Mesh& second = plan.stages[b].mesh;
    return std::pair(first.per_node, first.nodes) > std::pair(second.per_node, second.nodes);
  });
  for (const std::size_t i : order) {
    Stage& stage = plan.stages[i];
    GANTRY_CHECK(stage.mesh.nodes >= 1 && stage.mesh.per_node >= 1 && free.place(stage.mesh, stage.ranks),
                 "stages[{}]: no {} nodes of '{}' have {} devices left for its mesh; choose meshes that fill nodes", i,
                 stage.mesh.nodes, cluster.name, stage.mesh.per_node);
  }
}

}  // namespace gantry::plan
