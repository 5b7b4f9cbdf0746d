#pragma once
// Liveness in plain numbers, by intervals: every storage has a first and a last moment, and a peak is the greatest sum
// over the moments. The oracle of block_memory.
#include <algorithm>
#include <vector>

#include "gantry/spec/operator_graph.h"

namespace gantry::cost::testing {

struct NumericPeaks {
  double forward = 0;
  double backward = 0;
  double recomputed = 0;  ///< backward where all inputs are held
};

struct Interval {
  int first = 0;
  int last = 0;
  double bytes = 0;
};

inline double greatest_sum(const std::vector<Interval>& intervals, const std::vector<double>& workspaces) {
  double most = 0;
  for (int moment = 0; moment < static_cast<int>(workspaces.size()); ++moment) {
    double total = workspaces[static_cast<std::size_t>(moment)];
    for (const Interval& i : intervals) total += i.first <= moment && moment <= i.last ? i.bytes : 0;
    most = std::max(most, total);
  }
  return most;
}

class NumericWalk {
 public:
  NumericWalk(const spec::OperatorGraph& graph, spec::NodeRange range, const spec::Bindings& sizes)
      : graph_(graph), range_(range), sizes_(sizes) {}

  NumericPeaks peaks() { return {forward(), backward(false), backward(true)}; }

 private:
  using Ids = std::vector<int>;
  static bool has(const Ids& ids, int id) { return std::ranges::find(ids, id) != ids.end(); }
  const spec::GraphNode& node(int i) const { return graph_.nodes()[static_cast<std::size_t>(i)]; }
  const spec::GraphTensor& tensor(int id) const { return graph_.tensors()[static_cast<std::size_t>(id)]; }
  double bytes(int id) const { return tensor(id).bytes.evaluate(sizes_); }
  bool inside(int i) const { return i >= range_.first && i < range_.end; }
  int tensors() const { return static_cast<int>(graph_.tensors().size()); }

  bool read_in(int id, int first, int end) const {
    for (int i = first; i < end; ++i) {
      if (has(node(i).inputs, id)) return true;
    }
    return false;
  }
  bool is_input(int id) const { return !inside(tensor(id).producer) && read_in(id, range_.first, range_.end); }
  bool is_output(int id) const {
    if (!inside(tensor(id).producer)) return false;
    const bool later = read_in(id, range_.end, graph_.all().end);
    return later || (tensor(id).has_gradient && !read_in(id, range_.first, range_.end));
  }
  // The node that keeps `id` and runs backward last; -1: none.
  int keeper(int id) const {
    for (int i = range_.first; i < range_.end; ++i) {
      if (has(node(i).saved, id)) return i;
    }
    return -1;
  }

  double forward() const {
    const int end = range_.end - range_.first;
    std::vector<Interval> intervals;
    for (int id = 0; id < tensors(); ++id) {
      if (!is_input(id) && !inside(tensor(id).producer)) continue;
      const int first = is_input(id) ? range_.first : tensor(id).producer;
      int last = first;
      for (int i = range_.first; i < range_.end; ++i) {
        if (has(node(i).inputs, id)) last = i;
      }
      const bool stays = is_output(id) || keeper(id) >= 0;
      intervals.push_back({first - range_.first, stays ? end : last - range_.first, bytes(id)});
    }
    std::vector<double> workspaces;
    for (int i = range_.first; i < range_.end; ++i) workspaces.push_back(node(i).workspace_bytes.evaluate(sizes_));
    return greatest_sum(intervals, workspaces);
  }

  // One moment of the walk backward: a node or one step of it.
  struct Moment {
    int node;
    spec::BackwardStep step;
  };

  std::vector<Moment> moments() const {
    std::vector<Moment> all;
    for (int i = range_.end - 1; i >= range_.first; --i) {
      if (node(i).backward_steps.empty()) {
        const bool sum = node(i).kind == spec::OpKind::kResidualAdd;
        Ids frees = node(i).outputs;
        frees.insert(frees.end(), node(i).saved.begin(), node(i).saved.end());
        all.push_back({i, {node(i).inputs, frees, sum ? spec::SymbolicSize() : node(i).backward_workspace_bytes}});
      }
      for (const spec::BackwardStep& step : node(i).backward_steps) all.push_back({i, step});
    }
    return all;
  }

  // The moment at which node `i` lets go of `id`: the step that says so, or its last.
  static int freed_at(const std::vector<Moment>& all, int i, int id) {
    int found = -1;
    for (int t = 0; t < static_cast<int>(all.size()); ++t) {
      const Moment& moment = all[static_cast<std::size_t>(t)];
      if (moment.node != i) continue;
      found = t;
      if (has(moment.step.frees, id)) break;
    }
    return found;
  }

  double backward(bool recomputed) const {
    const std::vector<Moment> all = moments();
    const int end = static_cast<int>(all.size());
    std::vector<Interval> intervals;
    for (int id = 0; id < tensors(); ++id) {
      if (is_input(id)) {
        if (recomputed || keeper(id) >= 0) intervals.push_back({0, end, bytes(id)});
      } else if (keeper(id) >= 0) {
        intervals.push_back({0, freed_at(all, keeper(id), id), bytes(id)});
      }
    }
    add_gradients(all, intervals);
    std::vector<double> workspaces;
    for (const Moment& moment : all) workspaces.push_back(moment.step.workspace_bytes.evaluate(sizes_));
    return greatest_sum(intervals, workspaces);
  }

  // Gradients as intervals; a residual sum's inputs extend that of its result.
  void add_gradients(const std::vector<Moment>& all, std::vector<Interval>& intervals) const {
    const int end = static_cast<int>(all.size());
    std::vector<int> current(static_cast<std::size_t>(tensors()), -1);  // interval of a tensor's gradient
    const auto close = [&](int id, int moment) {
      const int index = current[static_cast<std::size_t>(id)];
      if (index < 0) return;
      Interval& interval = intervals[static_cast<std::size_t>(index)];
      interval.last = std::max(interval.last, moment);
      current[static_cast<std::size_t>(id)] = -1;
    };
    const auto open = [&](int id, int moment) {
      close(id, moment);
      current[static_cast<std::size_t>(id)] = static_cast<int>(intervals.size());
      intervals.push_back({moment, moment, bytes(id)});
    };
    for (int id = 0; id < tensors(); ++id) {
      if (is_output(id) && tensor(id).has_gradient) open(id, 0);
    }
    for (int t = 0; t < end; ++t) {
      const Moment& moment = all[static_cast<std::size_t>(t)];
      const spec::GraphNode& here = node(moment.node);
      for (const int id : moment.step.makes) {
        if (!tensor(id).has_gradient) continue;
        const bool shares = here.kind == spec::OpKind::kResidualAdd && current[static_cast<std::size_t>(id)] < 0;
        if (shares) {
          current[static_cast<std::size_t>(id)] = current[static_cast<std::size_t>(here.outputs[0])];
        } else {
          open(id, t);
        }
      }
      const bool last = t + 1 == end || all[static_cast<std::size_t>(t) + 1].node != moment.node;
      for (const int id : here.outputs) {
        if (last || has(moment.step.frees, id)) close(id, t);
      }
    }
    for (int id = 0; id < tensors(); ++id) close(id, end);
  }

  const spec::OperatorGraph& graph_;
  spec::NodeRange range_;
  spec::Bindings sizes_;
};

inline NumericPeaks numeric_peaks(const spec::OperatorGraph& graph, spec::NodeRange range,
                                  const spec::Bindings& sizes) {
  return NumericWalk(graph, range, sizes).peaks();
}

}  // namespace gantry::cost::testing
