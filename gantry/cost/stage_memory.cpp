#include "gantry/cost/stage_memory.h"

#include <cmath>

namespace gantry::cost {
namespace {

constexpr double kOptimizerBytes = 12;  // fp32 master and two moments

StateBytes full_states(const Section& section, const CostOptions& options) {
  const double width = element_bytes(options.dtype);
  // fp32 weights are their own masters.
  const double optimizer = options.dtype == "fp32" ? kOptimizerBytes - 4 : kOptimizerBytes;
  return {section.elements * width, section.elements * width, section.elements * optimizer};
}

StateBytes shard(StateBytes states, const Policy& policy, int zero) {
  const double ranks = policy.data_parallel;
  if (zero >= 3) states.weights /= ranks;
  if (zero >= 2) states.gradients /= ranks;
  if (zero >= 1) states.optimizer /= ranks;
  return states;
}

// Embedding and head are data-parallel with ZeRO-1 at most and never offloaded.
double edge_states(const Section& section, const Policy& policy, const CostOptions& options) {
  return shard(full_states(section, options), policy, std::min(policy.zero, 1)).sum();
}

double ring_bytes(const Sections& sections, const Policy& policy, const CostOptions& options) {
  // The released code sizes the rings by the largest section, though embedding and head never enter them.
  double elements = sections.block.elements;
  if (options.artifact_terms) elements = std::max({elements, sections.pre.elements, sections.post.elements});
  const bool weights = policy.zero >= 3 || policy.weight_offload > 0;
  const bool gradients = policy.zero >= 2 || policy.gradient_offload > 0;
  return 2.0 * elements * element_bytes(options.dtype) * ((weights ? 1 : 0) + (gradients ? 1 : 0));
}

}  // namespace

StageMemory stage_memory(const Sections& sections, const Policy& policy, const CostOptions& options) {
  StageMemory memory;
  const Section& block = sections.block;
  const StateBytes states = shard(full_states(block, options), policy, policy.zero);
  memory.buffers = ring_bytes(sections, policy, options);
  memory.optimizer_staged = std::floor(states.optimizer);
  memory.offloaded = {states.weights * policy.weight_offload, states.gradients * policy.gradient_offload,
                      states.optimizer * policy.optimizer_offload};
  memory.resident = {states.weights - memory.offloaded.weights, states.gradients - memory.offloaded.gradients,
                     states.optimizer - memory.offloaded.optimizer};
  memory.full_saved[0] = block.saved;
  memory.full_saved[1] = block.saved_checkpointed;
  memory.activation_offload = policy.activation_offload;
  for (const int kind : {0, 1}) memory.saved[kind] = memory.full_saved[kind] * (1 - policy.activation_offload);
  memory.peak_forward = block.peak_forward;
  memory.peak_backward = block.peak_backward;
  memory.checkpointed_peak_more = block.checkpointed_peak_more;
  memory.output = block.output;
  // Our liveness counts the score matrices; the released code adds the product's own buffer.
  memory.scores = options.artifact_terms ? block.scores : 0;
  memory.pre_states = edge_states(sections.pre, policy, options);
  memory.pre_saved = sections.pre.saved;
  memory.post_states = edge_states(sections.post, policy, options);
  memory.post_peak_forward = sections.post.peak_forward;
  memory.post_peak_backward = options.artifact_terms ? sections.post.peak_forward : sections.post.peak_backward;
  memory.post_output = sections.post.output;
  return memory;
}

StageMemory::Peaks StageMemory::peaks(int layers, int checkpointed, double warmup, bool first, bool last) const {
  const double states_but_optimizer = buffers + layers * (resident.weights + resident.gradients);
  const double states_forward = states_but_optimizer + optimizer_staged + (layers - 1) * resident.optimizer;
  const double states_backward = states_but_optimizer + layers * resident.optimizer;
  const double micro_batch = checkpointed * saved[1] + (layers - checkpointed) * saved[0];
  const double others = checkpointed == layers ? (layers - 1) * saved[1] : micro_batch - saved[0];
  const double restored = activation_offload * (checkpointed >= layers - 1 ? full_saved[1] : full_saved[0]);
  const double common = warmup * micro_batch + scores + (first ? pre_states + (warmup + 1) * pre_saved : 0);
  double running = peak_backward;
  if (checkpointed_peak_more > 0 && checkpointed > 0) {
    // The last checkpointed layer to run has only those before it beside it.
    running = std::max(running, (checkpointed - 1) * saved[1] + peak_backward + checkpointed_peak_more - others);
  }
  Peaks peaks;
  peaks.forward = states_forward + common + others + restored + peak_forward + 2 * warmup * output;
  peaks.backward = states_backward + common + others + restored + running + 2 * (warmup + 1) * output;
  if (last) {
    const double own_states = post_states - (first ? shared_states : 0);
    const double head = common + own_states + micro_batch;
    const double kept = checkpointed == 0 ? activation_offload * full_saved[0] : 0;
    peaks.forward = std::max(peaks.forward + own_states, states_forward + head + post_peak_forward);
    peaks.backward =
        std::max(peaks.backward + own_states - output, states_backward + head + post_peak_backward + kept) +
        post_output;
  }
  return peaks;
}

double StageMemory::host_bytes(int layers, int checkpointed, double warmup) const {
  const double micro_batch = checkpointed * full_saved[1] + (layers - checkpointed) * full_saved[0];
  return layers * offloaded.sum() + (warmup + 1) * micro_batch * activation_offload;
}

double memory_margin(const spec::ModelConfig& model, std::int64_t sequence, const Policy& policy, bool first, bool last,
                     const CostOptions& options) {
  if (!options.memory_margin) return 1;
  // Made from measurements at hidden sizes of 2,048 to 6,144 and sequences of 2,048 and 4,096: held at four times the
  // base.
  const auto beyond = [](std::int64_t size) { return std::clamp(static_cast<double>(size) / 2048 - 1, 0.0, 3.0); };
  double margin = 1 + .005 * beyond(model.hidden_size) + .045 * beyond(sequence);
  margin += policy.weight_offload > 0 ? .025 : 0;
  margin += policy.gradient_offload > 0 ? .025 : 0;
  margin += policy.optimizer_offload > 0 ? .03 : 0;
  margin += policy.activation_offload > 0 ? .04 : 0;
  margin += policy.zero >= 3 ? .025 : 0;
  margin += policy.zero >= 2 ? .025 : 0;
  margin += policy.tensor_parallel > 1 ? .04 : 0;
  margin += policy.micro_batch >= 4 ? .01 : 0;
  if (!(first && last)) margin += first || last ? .025 : .035;
  return margin;
}

}  // namespace gantry::cost
