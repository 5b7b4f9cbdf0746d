#include "gantry/cost/block_memory.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <vector>

#include "gantry/base/check.h"

namespace gantry::cost {
namespace {

using spec::GraphNode;
using spec::GraphTensor;
using spec::OpKind;
using spec::SymbolicSize;

// What both walks need to know of a section.
struct Section {
  Section(const spec::OperatorGraph& whole, spec::NodeRange nodes) : graph(whole), range(nodes) {
    const std::vector<int> read = graph.inputs_of(range);
    inputs.insert(read.begin(), read.end());
    std::set<int> consumed;
    for (int i = range.end - 1; i >= range.first; --i) {
      for (const int id : node(i).inputs) {
        consumed.insert(id);
        last_reader.try_emplace(id, i);
      }
      for (const int id : node(i).saved) first_keeper[id] = i;
    }
    for (int i = range.end; i < graph.all().end; ++i) {
      for (const int id : node(i).inputs) {
        consumed.erase(id);  // read later: an output, whoever reads it here
        if (produced_here(id)) outputs.insert(id);
      }
    }
    for (int i = range.first; i < range.end; ++i) {
      for (const int id : node(i).outputs) {
        if (tensor(id).has_gradient && !consumed.contains(id)) outputs.insert(id);
      }
    }
  }

  const GraphNode& node(int index) const { return graph.nodes()[static_cast<std::size_t>(index)]; }
  const GraphTensor& tensor(int id) const { return graph.tensors()[static_cast<std::size_t>(id)]; }
  bool produced_here(int id) const { return tensor(id).producer >= range.first && tensor(id).producer < range.end; }
  bool kept(int id) const { return outputs.contains(id) || first_keeper.contains(id); }

  SymbolicSize bytes(const std::set<int>& ids) const { return graph.bytes_of({ids.begin(), ids.end()}); }

  const spec::OperatorGraph& graph;
  spec::NodeRange range;
  std::set<int> inputs;
  std::set<int> outputs;
  std::map<int, int> last_reader;   // by tensor, node index
  std::map<int, int> first_keeper;  // the earliest node that keeps a tensor for backward
};

class Peak {
 public:
  void meet(const SymbolicSize& live) { most_ = symbolic::max(most_, to_expr(live)); }
  const symbolic::Expr& most() const { return most_; }

 private:
  symbolic::Expr most_;
};

symbolic::Expr forward_peak(const Section& section) {
  Peak peak;
  std::set<int> live = section.inputs;
  for (int i = section.range.first; i < section.range.end; ++i) {
    const GraphNode& node = section.node(i);
    live.insert(node.outputs.begin(), node.outputs.end());
    peak.meet(section.bytes(live) + node.workspace_bytes);
    std::erase_if(live, [&](int id) {
      const auto reader = section.last_reader.find(id);
      const bool done = reader == section.last_reader.end() || reader->second <= i;
      return done && !section.kept(id);
    });
  }
  return peak.most();
}

// The walk backward: kept tensors, and gradients as storages that several tensors may share.
class Backward {
 public:
  // `recomputed`: the caller holds the inputs, whether a node keeps them or not.
  Backward(const Section& section, bool recomputed) : section_(section) {
    if (recomputed) kept_ = section.inputs;
    for (const auto& [id, keeper] : section.first_keeper) kept_.insert(id);
    for (const int id : section.outputs) {
      if (section.tensor(id).has_gradient) gradient_of_[id] = new_storage(id);
    }
  }

  symbolic::Expr peak() {
    for (int i = section_.range.end - 1; i >= section_.range.first; --i) {
      const GraphNode& node = section_.node(i);
      if (node.kind == OpKind::kResidualAdd) {
        share_gradient(node);
      } else if (node.backward_steps.empty()) {
        spec::BackwardStep whole{node.inputs, node.outputs, node.backward_workspace_bytes};
        run(node, whole, i);
      } else {
        for (const spec::BackwardStep& step : node.backward_steps) run(node, step, i);
      }
      finish(node, i);
    }
    return peak_.most();
  }

 private:
  int new_storage(int tensor) {
    storage_bytes_.push_back(section_.tensor(tensor).bytes);
    return static_cast<int>(storage_bytes_.size()) - 1;
  }

  // Live bytes; `sums` are storages that gradients of this step are added to.
  SymbolicSize live(const std::set<int>& sums) const {
    std::set<int> storages = sums;
    for (const auto& [tensor, storage] : gradient_of_) storages.insert(storage);
    SymbolicSize total = section_.bytes(kept_);
    for (const int storage : storages) total += storage_bytes_[static_cast<std::size_t>(storage)];
    return total;
  }

  void run(const GraphNode& node, const spec::BackwardStep& step, int index) {
    std::set<int> sums;
    for (const int id : step.makes) {
      if (!section_.tensor(id).has_gradient) continue;
      const auto found = gradient_of_.find(id);
      if (found != gradient_of_.end()) sums.insert(found->second);
      gradient_of_[id] = new_storage(id);
    }
    peak_.meet(live(sums) + step.workspace_bytes);
    for (const int id : step.frees) {
      if (std::ranges::find(node.outputs, id) != node.outputs.end()) gradient_of_.erase(id);
      free_kept(id, index);
    }
  }

  void share_gradient(const GraphNode& node) {
    const auto result = gradient_of_.find(node.outputs[0]);
    GANTRY_CHECK(result != gradient_of_.end(), "{}: no later node makes the gradient of its result", node.name);
    const int storage = result->second;
    std::set<int> sums;
    for (const int id : node.inputs) {
      const auto found = gradient_of_.find(id);
      if (found == gradient_of_.end()) {
        gradient_of_[id] = storage;
      } else {
        sums.insert(found->second);
        found->second = new_storage(id);
      }
    }
    peak_.meet(live(sums));
  }

  void free_kept(int id, int index) {
    const auto keeper = section_.first_keeper.find(id);
    if (keeper != section_.first_keeper.end() && keeper->second == index && !section_.inputs.contains(id)) {
      kept_.erase(id);
    }
  }

  void finish(const GraphNode& node, int index) {
    for (const int id : node.outputs) gradient_of_.erase(id);
    for (const int id : node.saved) free_kept(id, index);
  }

  const Section& section_;
  std::set<int> kept_;
  std::map<int, int> gradient_of_;  // tensor to storage
  std::vector<SymbolicSize> storage_bytes_;
  Peak peak_;
};

}  // namespace

symbolic::Expr to_expr(const SymbolicSize& size) {
  static const std::array<symbolic::Expr, spec::kSymbolCount> symbols = {symbolic::sym("b"), symbolic::sym("s"),
                                                                         symbolic::sym("s"), symbolic::sym("tp")};
  symbolic::Expr total;
  for (const SymbolicSize::Term& term : size.terms()) {
    symbolic::Expr product = term.coefficient;
    for (std::size_t i = 0; i < spec::kSymbolCount; ++i) {
      for (int n = 0; n < term.powers[i]; ++n) product *= symbols[i];
      for (int n = 0; n > term.powers[i]; --n) product /= symbols[i];
    }
    total += product;
  }
  return total;
}

SectionMemory analyse(const spec::OperatorGraph& graph, spec::NodeRange range) {
  GANTRY_CHECK(range.first >= 0 && range.first < range.end && range.end <= graph.all().end,
               "memory of nodes [{}, {}): the graph has {} nodes", range.first, range.end, graph.all().end);
  const Section section(graph, range);
  std::set<int> saved;
  for (const auto& [id, keeper] : section.first_keeper) saved.insert(id);
  SectionMemory memory;
  memory.saved_checkpointed = to_expr(section.bytes(section.inputs));
  memory.saved = to_expr(section.bytes(saved));
  memory.output = to_expr(section.bytes(section.outputs));
  memory.peak_forward = forward_peak(section);
  memory.peak_backward = Backward(section, false).peak();
  memory.peak_recomputed = Backward(section, true).peak();
  for (int i = range.first; i < range.end; ++i) {
    const GraphNode& node = section.node(i);
    memory.weight_elements += to_expr(node.weight_elements);
    memory.attention_scores = symbolic::max(memory.attention_scores, to_expr(node.score_bytes));
  }
  return memory;
}

}  // namespace gantry::cost
