#include "gantry/cost/stage_parts.h"

#include <algorithm>

namespace gantry::cost {
namespace {

struct Copies {
  const Profile& profile;
  double sharing;
  double in(double bytes) const { return copy_s(profile.copy_in, bytes * sharing); }
  double out(double bytes) const { return copy_s(profile.copy_out, bytes * sharing); }
};

EdgeSeconds edge_seconds(const Section& section, const Profile& profile, const CostOptions& options, GroupShape group,
                         const Policy& policy, int accumulation) {
  EdgeSeconds edge;
  const double accumulate = section.accumulate_s * (accumulation - 1) / accumulation;
  edge.backward_s = section.backward_s + accumulate + section.tp_backward_s;
  edge.steady_s = section.forward_s + section.tp_forward_s;
  const double bytes = section.elements * element_bytes(options.dtype);
  if (policy.zero >= 1) {
    edge.gather_s = collective_s(profile, Collective::kAllGather, bytes, group);
    edge.reduce_s = collective_s(profile, Collective::kReduceScatter, bytes, group);
  } else {
    edge.reduce_s = collective_s(profile, Collective::kAllReduce, bytes, group);
  }
  if (options.price_optimizer) edge.optimizer_s = section.optimizer_s / (policy.zero >= 1 ? policy.data_parallel : 1);
  return edge;
}

}  // namespace

GroupShape data_parallel_group(const Mesh& mesh, const Policy& policy) {
  int nodes = std::min(policy.data_parallel, mesh.nodes);
  while (policy.data_parallel % nodes != 0) --nodes;
  return {nodes, policy.data_parallel / nodes};
}

void set_transfers(LayerWork& work, const Sections& sections, const Profile& profile, const Cluster& cluster,
                   const CostOptions& options, const Policy& policy) {
  const Copies copies{profile, static_cast<double>(cluster.devices_per_host_link)};
  const StageMemory memory = stage_memory(sections, policy, options);
  work.in_weights_s = copies.in(memory.offloaded.weights);
  work.in_gradients_s = copies.in(memory.offloaded.gradients);
  work.in_optimizer_s = copies.in(memory.offloaded.optimizer);
  work.out_weights_s = copies.out(memory.offloaded.weights);
  work.out_gradients_s = copies.out(memory.offloaded.gradients);
  work.out_optimizer_s = copies.out(memory.offloaded.optimizer);
  for (const int kind : {0, 1}) {
    const double bytes = memory.full_saved[kind] * policy.activation_offload;
    work.in_activations_s[kind] = copies.in(bytes);
    work.out_activations_s[kind] = copies.out(bytes);
  }
}

StageParts stage_parts(const SectionTable& table, const Profile& profile, const Cluster& cluster,
                       const CostOptions& options, bool tied, const Mesh& mesh, const Policy& policy,
                       int accumulation) {
  const Sections& sections =
      table.at({policy.micro_batch, policy.tensor_parallel, policy.mode, policy.sequence_parallel});
  const Section& block = sections.block;
  const GroupShape group = data_parallel_group(mesh, policy);
  const double bytes = block.elements * element_bytes(options.dtype);
  StageParts parts;
  LayerWork& work = parts.work;
  work.forward_s = block.forward_s;
  work.backward_s = block.backward_s + block.accumulate_s * (accumulation - 1) / accumulation;
  work.rerun_s = block.rerun_s;
  work.tp_rerun_s = block.tp_rerun_s;
  work.tp_forward_s = block.tp_forward_s;
  work.tp_backward_s = block.tp_backward_s;
  if (options.price_optimizer) work.optimizer_s = block.optimizer_s / (policy.zero >= 1 ? policy.data_parallel : 1);
  work.gather_s = collective_s(profile, Collective::kAllGather, bytes, group);
  work.gather_each = policy.zero >= 3;
  work.gather_first = policy.zero >= 1;
  const double scatter = collective_s(profile, Collective::kReduceScatter, bytes, group);
  work.reduce_s[0] = policy.zero >= 2 ? scatter : 0;
  work.reduce_s[1] = policy.zero >= 1 ? scatter : collective_s(profile, Collective::kAllReduce, bytes, group);
  set_transfers(work, sections, profile, cluster, options, policy);

  parts.pre = edge_seconds(sections.pre, profile, options, group, policy, accumulation);
  parts.pre.steady_s += parts.pre.backward_s;
  parts.post = edge_seconds(sections.post, profile, options, group, policy, accumulation);
  const bool across = mesh.nodes > 1 || (cluster.nodes > 1 && mesh.per_node == cluster.devices_per_node);
  if (options.price_p2p && cluster.devices() > 1) {
    parts.p2p_s = p2p_s(profile, block.output, across);  // sequence-parallel ranks hold a part each
    if (tied) {
      const GroupShape pair{across ? 2 : 1, across ? 1 : 2};
      const double shared = sections.pre.elements * element_bytes(options.dtype);
      parts.tied_reduce_s = collective_s(profile, Collective::kAllReduce, shared, pair);
    }
  }
  parts.tied = tied && !options.artifact_terms;
  parts.memory = stage_memory(sections, policy, options);
  if (parts.tied) parts.memory.shared_states = std::min(parts.memory.pre_states, parts.memory.post_states);
  return parts;
}

double exposed_post_gather_s(const LayerWork& work, const EdgeSeconds& post) {
  const ChannelTimes after = exposed_after(work, Phase::kForwardFirst, false);
  return std::max(post.gather_s - std::max(work.forward_s - after[3], 0.0), 0.0);
}

StageSeconds stage_seconds(const StageParts& parts, const Factors& factors, const CostOptions& options) {
  StageSeconds seconds;
  const LayerWork& work = parts.work;
  const bool last_first = options.artifact_terms;
  seconds.forward_first = phase_seconds(work, Phase::kForwardFirst, factors, last_first);
  seconds.forward = phase_seconds(work, Phase::kForward, factors, last_first);
  seconds.backward = phase_seconds(work, Phase::kBackward, factors, last_first);
  seconds.backward_last = phase_seconds(work, Phase::kBackwardLast, factors, last_first);
  seconds.post_gather_s = exposed_post_gather_s(work, parts.post);
  for (const bool checkpointed : {false, true}) {
    const ChannelTimes before = exposed_before(work, Phase::kBackwardLast, checkpointed);
    seconds.before_backward_s[checkpointed] = overlap_s(before, factors);
    const double hidden = work.backward_s + repeated_s(work, checkpointed) - before[1] - before[2];
    seconds.post_reduce_s[checkpointed] = std::max(parts.post.reduce_s - std::max(hidden, 0.0), 0.0);
  }
  return seconds;
}

StageTime stage_time(const StageParts& parts, const StageSeconds& seconds, const CostOptions& options, int layers,
                     int checkpointed, bool first, bool last, int accumulation, int chunks) {
  const bool last_checkpointed = split_checkpoints(layers, checkpointed, options.artifact_terms).last;
  StageTime time;
  const double extreme =
      seconds.forward_first.total(layers, checkpointed) + seconds.backward_last.total(layers, checkpointed);
  time.t_s = extreme;
  if (accumulation > 1) {
    time.t_s = seconds.forward.total(layers, checkpointed) + seconds.backward.total(layers, checkpointed);
    time.d_s = extreme - time.t_s;
  }
  time.t_s += parts.p2p_s * chunks * ((first ? 0 : 1) + (last ? 0 : 1));
  if (first) {
    time.t_s += parts.pre.steady_s;
    time.d_s += parts.pre.gather_s + parts.pre.reduce_s + parts.pre.optimizer_s;
  }
  if (last) {
    time.t_s +=
        parts.post.steady_s + std::max(parts.post.backward_s - seconds.before_backward_s[last_checkpointed], 0.0);
    // One set of weights serves embedding and head where both are on one stage.
    if (!(first && parts.tied)) {
      time.d_s += seconds.post_gather_s + seconds.post_reduce_s[last_checkpointed] + parts.post.optimizer_s;
    }
  }
  if (first != last) time.d_s += parts.tied_reduce_s;
  return time;
}

}  // namespace gantry::cost
