#include "gantry/plan/stage_family.h"

#include <algorithm>

namespace gantry::plan {
namespace {

bool is_first(Role role) { return role == Role::kFirst || role == Role::kOnly; }
bool is_last(Role role) { return role == Role::kLast || role == Role::kOnly; }

}  // namespace

StageFamily::StageFamily(const cost::CostModel& model, const SearchSpace& space, const cost::Mesh& shape,
                         const cost::Policy& base, int accumulation)
    : model_(model), space_(space), shape_(shape), accumulation_(accumulation) {
  const auto group = cost::data_parallel_group(shape, base);
  factors_ = &model.profile().factors(group.per_node, group.nodes);
  for (const int zero : space.zero) {
    // Without data parallelism there is nothing to shard: all levels are alike.
    if (base.data_parallel == 1 && zero != space.zero.front()) continue;
    cost::Policy policy = base;
    policy.zero = zero;
    add_groups(policy);
  }
  std::ranges::stable_sort(groups_, {}, &Group::least_t_s);
  if (!groups_.empty()) least_layer_s_ = groups_.front().least_t_s;
}

void StageFamily::add_groups(const cost::Policy& base) {
  for (const double weights : space_.weights) {
    for (const double gradients : space_.gradients) {
      if (space_.weights_need_gradients && weights > 0 && gradients == 0) continue;
      for (const double activations : space_.activations) {
        Group group;
        group.policy = base;
        group.policy.weight_offload = weights;
        group.policy.gradient_offload = gradients;
        group.policy.activation_offload = activations;
        group.parts = cost::stage_parts(model_.sections(), model_.profile(), model_.cluster(), model_.options(),
                                        model_.model().tied_embeddings, shape_, group.policy, accumulation_);
        group.seconds = cost::stage_seconds(group.parts, *factors_, model_.options());
        group.first_forward.resize(space_.optimizer.size());
        group.first_forward[0] = FirstForward{group.seconds.forward_first, group.seconds.post_gather_s};
        group.optimizer_bytes = group.parts.memory.resident.optimizer;
        const auto layer_s = [&](std::size_t checkpointed) {
          return group.seconds.forward.interior[checkpointed] + group.seconds.backward.interior[checkpointed];
        };
        // A checkpointed layer offloads less.
        group.least_t_s = std::min(layer_s(0), layer_s(1));
        groups_.push_back(std::move(group));
      }
    }
  }
}

int StageFamily::least_optimizer_ratio(const Group& group, Role role, double warmup, int layers,
                                       int checkpointed) const {
  const bool first = is_first(role);
  const bool last = is_last(role);
  const auto& memory = group.parts.memory;
  const double limit = model_.device_bytes();
  const auto peaks = memory.peaks(layers, checkpointed, warmup, first, last);
  const double host = model_.host_bytes_per_device() - memory.host_bytes(layers, checkpointed, warmup);
  if (host < 0) return -1;
  cost::Policy policy = group.policy;
  const auto margin = [&] {
    return cost::memory_margin(model_.model(), model_.sequence(), policy, first, last, model_.options());
  };
  if (std::max(peaks.forward, peaks.backward) * margin() <= limit) return 0;
  policy.optimizer_offload = 1;
  const double allowed = limit / margin();
  const int count = static_cast<int>(space_.optimizer.size());
  for (int i = 1; i < count; ++i) {
    const double moved = space_.optimizer[static_cast<std::size_t>(i)] * group.optimizer_bytes;
    if (peaks.forward - (layers - 1) * moved > allowed || peaks.backward - layers * moved > allowed) continue;
    return layers * moved <= host ? i : -1;
  }
  return -1;
}

const StageFamily::FirstForward& StageFamily::first_forward(Group& group, int ratio) {
  auto& cached = group.first_forward[static_cast<std::size_t>(ratio)];
  if (!cached) {
    cost::Policy policy = group.policy;
    policy.optimizer_offload = space_.optimizer[static_cast<std::size_t>(ratio)];
    cost::LayerWork work = group.parts.work;
    cost::set_transfers(
        work, model_.sections().at({policy.micro_batch, policy.tensor_parallel, policy.mode, policy.sequence_parallel}),
        model_.profile(), model_.cluster(), model_.options(), policy);
    cached =
        FirstForward{cost::phase_seconds(work, cost::Phase::kForwardFirst, *factors_, model_.options().artifact_terms),
                     cost::exposed_post_gather_s(work, group.parts.post)};
  }
  return *cached;
}

// Below this count no stage of the range fits, however much of the optimizer states is offloaded; layers + 1 where none
// does.
int StageFamily::fewest_checkpointed(const Group& group, const StageRange& range) const {
  const bool first = is_first(range.role);
  const bool last = is_last(range.role);
  const double allowed = model_.device_bytes() / cost::memory_margin(model_.model(), model_.sequence(), group.policy,
                                                                     first, last, model_.options());
  const double moved = space_.optimizer.back() * group.optimizer_bytes;
  cost::StageMemory memory = group.parts.memory;
  memory.checkpointed_peak_more = 0;  // what is left never grows with the count
  const auto fits = [&](int count) {
    const auto peaks = memory.peaks(range.layers, count, range.least_warmup, first, last);
    return peaks.forward - (range.layers - 1) * moved <= allowed && peaks.backward - range.layers * moved <= allowed;
  };
  if (fits(0)) return 0;
  int misses = 0;
  int fitting = range.layers + 1;
  while (fitting - misses > 1) {
    const int middle = (misses + fitting) / 2;
    (fits(middle) ? fitting : misses) = middle;
  }
  return fitting;
}

void StageFamily::append_times(std::vector<FrontPoint>& times, const StageRange& range, int index,
                               double limit_s) const {
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    const Group& group = groups_[i];
    if (range.layers * group.least_t_s >= limit_s) break;  // and so are all that follow
    for (int count = fewest_checkpointed(group, range); count <= range.layers; ++count) {
      const bool allowed = count == 0              ? range.checkpoint_none
                           : count == range.layers ? range.checkpoint_all
                                                   : range.checkpoint_some;
      if (!allowed) continue;
      const cost::StageTime time =
          cost::stage_time(group.parts, group.seconds, model_.options(), range.layers, count, is_first(range.role),
                           is_last(range.role), accumulation_, range.chunks);
      if (time.t_s < limit_s) times.push_back({time.t_s, time.d_s, {index, static_cast<int>(i), 0, count}});
    }
  }
}

std::optional<FrontPoint> StageFamily::fit(const FrontPoint& time, Role role, double warmup, int layers) {
  Group& group = groups_[static_cast<std::size_t>(time.choice.group)];
  const int checkpointed = time.choice.checkpointed;
  const int ratio = least_optimizer_ratio(group, role, warmup, layers, checkpointed);
  if (ratio < 0) return std::nullopt;
  FrontPoint point = time;
  point.choice.optimizer = ratio;
  if (ratio == 0) return point;
  const FirstForward& with = first_forward(group, ratio);
  const FirstForward& without = *group.first_forward[0];
  (accumulation_ > 1 ? point.d_s : point.t_s) +=
      with.layers.total(layers, checkpointed) - without.layers.total(layers, checkpointed);
  const bool own_head = is_last(role) && !(is_first(role) && group.parts.tied);
  if (own_head) point.d_s += with.post_gather_s - without.post_gather_s;
  return point;
}

cost::Policy StageFamily::policy(const PolicyChoice& choice) const {
  cost::Policy policy = groups_[static_cast<std::size_t>(choice.group)].policy;
  policy.optimizer_offload = space_.optimizer[static_cast<std::size_t>(choice.optimizer)];
  return policy;
}

}  // namespace gantry::plan
