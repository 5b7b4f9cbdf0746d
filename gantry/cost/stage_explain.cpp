// What a stage's price is made of: the steps of its phases for the simulator, named terms for people.
#include <algorithm>

#include "gantry/cost/stage.h"
#include "gantry/cost/stage_impl.h"

namespace gantry::cost {
namespace {

constexpr ChannelTimes kNothing{};

class PhaseWriter {
 public:
  PhaseWriter(const StageParts& parts, const StageQuery& query, bool last_checkpointed_first)
      : parts_(parts),
        query_(query),
        split_(split_checkpoints(query.layers, query.checkpointed, last_checkpointed_first)) {}

  std::vector<LayerStep> forward(Phase phase) const {
    std::vector<LayerStep> steps;
    const bool extreme = phase == Phase::kForwardFirst;
    if (query_.first) {
      if (extreme) {
        add(steps, {0, parts_.pre.gather_s, 0, 0}, 0, "transfer");
        add(steps, {parts_.pre.optimizer_s, 0, 0, 0}, 0, "optimizer");
      }
      add(steps, {parts_.pre.steady_s - parts_.pre.backward_s, 0, 0, 0}, 0, "embedding");
    }
    add(steps, exposed_before(parts_.work, phase, split_.last), 0, "transfer");
    for (int i = 0; i < query_.layers; ++i) steps.push_back(layer(phase, i));
    add(steps, exposed_after(parts_.work, phase, split_.last), 0, "transfer");
    return steps;
  }

  std::vector<LayerStep> backward(Phase phase) const {
    std::vector<LayerStep> steps;
    add(steps, exposed_before(parts_.work, phase, split_.last), 0, "transfer");
    for (int i = query_.layers - 1; i >= 0; --i) steps.push_back(layer(phase, i));
    add(steps, exposed_after(parts_.work, phase, split_.last), 0, "transfer");
    if (query_.first) {
      add(steps, {parts_.pre.backward_s, 0, 0, 0}, 0, "embedding");
      if (phase == Phase::kBackwardLast) add(steps, {0, parts_.pre.reduce_s, 0, 0}, 0, "transfer");
    }
    return steps;
  }

  static void add(std::vector<LayerStep>& steps, const ChannelTimes& alone, double serial, std::string_view name) {
    if (alone == kNothing && serial == 0) return;
    steps.push_back({alone, serial, -1, name});
  }

  bool last_checkpointed() const { return split_.last; }

 private:
  bool checkpointed(int i) const {
    if (i == 0) return split_.first;
    if (i == query_.layers - 1) return split_.last;
    return i <= split_.interior;
  }
  LayerStep layer(Phase phase, int i) const {
    const bool kept_inputs_only = checkpointed(i);
    const bool backward = phase == Phase::kBackward || phase == Phase::kBackwardLast;
    return {layer_row(parts_.work, phase, i == 0, i == query_.layers - 1, kept_inputs_only),
            layer_serial_s(parts_.work, phase, kept_inputs_only), i, "layer",
            backward ? repeated_s(parts_.work, kept_inputs_only) : 0};
  }

  const StageParts& parts_;
  const StageQuery& query_;
  CheckpointSplit split_;
};

// The head stands between the last stage's forward and its backward.
void add_head(StagePhases& phases, const StageParts& parts, const StageQuery& query, const StageSeconds& seconds,
              bool last_checkpointed) {
  const double backward = std::max(parts.post.backward_s - seconds.before_backward_s[last_checkpointed], 0.0);
  const bool own_weights = !(query.first && parts.tied);
  for (auto* steps : {&phases.forward_first, &phases.forward}) {
    PhaseWriter::add(*steps, {parts.post.steady_s, 0, 0, 0}, 0, "head");
  }
  for (auto* steps : {&phases.backward, &phases.backward_last}) {
    std::vector<LayerStep> head;
    PhaseWriter::add(head, {backward, 0, 0, 0}, 0, "head");
    steps->insert(steps->begin(), head.begin(), head.end());
  }
  if (!own_weights) return;
  PhaseWriter::add(phases.forward_first, {0, seconds.post_gather_s, 0, 0}, 0, "transfer");
  PhaseWriter::add(phases.forward_first, {parts.post.optimizer_s, 0, 0, 0}, 0, "optimizer");
  PhaseWriter::add(phases.backward_last, {0, seconds.post_reduce_s[last_checkpointed], 0, 0}, 0, "transfer");
}

}  // namespace

StagePhases CostModel::phases(const StageQuery& query) const {
  const StageParts parts = impl_->parts(query);
  const StageSeconds seconds = stage_seconds(parts, impl_->factors(query), impl_->options);
  const PhaseWriter writer(parts, query, impl_->options.artifact_terms);
  StagePhases phases;
  phases.factors = impl_->factors(query);
  phases.forward_first = writer.forward(Phase::kForwardFirst);
  phases.forward = writer.forward(Phase::kForward);
  phases.backward = writer.backward(Phase::kBackward);
  phases.backward_last = writer.backward(Phase::kBackwardLast);
  if (query.last) add_head(phases, parts, query, seconds, writer.last_checkpointed());
  if (query.first != query.last) {
    PhaseWriter::add(phases.backward_last, {0, parts.tied_reduce_s, 0, 0}, 0, "transfer");
  }
  phases.p2p_s = parts.p2p_s;
  const Section& block = impl_->section_of(query).block;
  phases.weight_gradient_s = query.layers * block.weight_gradient_s;
  return phases;
}

std::vector<CostTerm> CostModel::explain_memory(const StageQuery& query, bool backward) const {
  const StageMemory memory = impl_->parts(query).memory;
  const double micro_batch =
      query.checkpointed * memory.saved[1] + (query.layers - query.checkpointed) * memory.saved[0];
  const auto peaks = memory.peaks(query.layers, query.checkpointed, query.warmup, query.first, query.last);
  const double peak = backward ? peaks.backward : peaks.forward;
  std::vector<CostTerm> terms{{"weights", query.layers * memory.resident.weights},
                              {"gradients", query.layers * memory.resident.gradients},
                              {"optimizer states", query.layers * memory.resident.optimizer},
                              {"rings of full weights and gradients", memory.buffers},
                              {"activations of micro-batches in flight", (query.warmup + 1) * micro_batch}};
  double embedding = 0;
  if (query.first) embedding += memory.pre_states + (query.warmup + 1) * memory.pre_saved;
  if (query.last) embedding += memory.post_states - (query.first ? memory.shared_states : 0);
  terms.push_back({"embedding and head", embedding});
  double known = 0;
  for (const CostTerm& term : terms) known += term.value;
  // Activations of the running layer, its gradients and workspaces, boundary tensors.
  terms.push_back({"running layer: activations, gradients, workspace", peak - known});
  terms.push_back({"margin", peak * (impl_->margin(query) - 1)});
  return terms;
}

std::vector<CostTerm> CostModel::explain_time(const StageQuery& query) const {
  const StageParts parts = impl_->parts(query);
  const LayerWork& work = parts.work;
  const StageCost cost = price(query);
  const int plain = query.layers - query.checkpointed;
  std::vector<CostTerm> terms{{"forward", query.layers * work.forward_s},
                              {"backward", query.layers * work.backward_s},
                              {"recomputation", query.checkpointed * work.forward_s + plain * work.rerun_s}};
  if (query.accumulation == 1) terms.push_back({"optimizer step", query.layers * work.optimizer_s});
  terms.push_back({"tensor-parallel collectives", query.layers * (work.tp_forward_s + work.tp_backward_s) +
                                                      query.checkpointed * work.tp_forward_s +
                                                      plain * work.tp_rerun_s});
  double edges = 0;
  if (query.first) edges += parts.pre.steady_s;
  if (query.last) edges += parts.post.steady_s + parts.post.backward_s;
  terms.push_back({"embedding and head", edges});
  terms.push_back(
      {"transfers between stages", parts.p2p_s * query.chunks * ((query.first ? 0 : 1) + (query.last ? 0 : 1))});
  double known = 0;
  for (const CostTerm& term : terms) known += term.value;
  terms.push_back({"exposed or contending copies and collectives", cost.t_s - known});
  return terms;
}

}  // namespace gantry::cost
