#include "gantry/cost/stage.h"

#include <algorithm>

#include "gantry/base/check.h"
#include "gantry/cost/stage_impl.h"
#include "gantry/spec/sharding.h"

namespace gantry::cost {

CostOptions CostOptions::artifact() {
  CostOptions options;
  options.rules = OperatorRules{.clamp_backward = true, .drop_small = true, .skip_edge_norms = true};
  options.price_p2p = false;
  options.price_optimizer = false;
  options.artifact_terms = true;
  options.memory_margin = false;
  return options;
}

CostModel::CostModel(const spec::ModelConfig& model, std::int64_t sequence, const Profile& profile,
                     const Cluster& cluster, const CostOptions& options)
    : impl_(std::make_unique<Impl>(model, sequence, profile, cluster, options)) {
  GANTRY_CHECK(sequence >= 1, "sequence length {} must be at least 1", sequence);
}
CostModel::~CostModel() = default;
CostModel::CostModel(CostModel&&) noexcept = default;

const CostOptions& CostModel::options() const { return impl_->options; }
const Profile& CostModel::profile() const { return impl_->profile; }
const Cluster& CostModel::cluster() const { return impl_->cluster; }
const spec::ModelConfig& CostModel::model() const { return impl_->model; }
std::int64_t CostModel::sequence() const { return impl_->sequence; }
const SectionTable& CostModel::sections() const { return impl_->sections; }
ProvenanceCount CostModel::provenance() const { return impl_->sections.provenance(); }
double CostModel::device_bytes() const { return static_cast<double>(impl_->cluster.device_memory_bytes); }
double CostModel::host_bytes_per_device() const {
  const double bytes = static_cast<double>(impl_->cluster.host_memory_bytes);
  return bytes > 0 ? bytes / impl_->cluster.devices_per_node : std::numeric_limits<double>::infinity();
}

bool CostModel::divisible(int tensor_parallel) const {
  return tensor_parallel <= impl_->cluster.devices_per_node && impl_->model.vocab_size % tensor_parallel == 0 &&
         !spec::tensor_parallel_refusal(impl_->model, tensor_parallel).has_value();
}

StageCost CostModel::price(const StageQuery& query) const {
  const StageParts parts = impl_->parts(query);
  const StageSeconds seconds = stage_seconds(parts, impl_->factors(query), impl_->options);
  const StageTime time = stage_time(parts, seconds, impl_->options, query.layers, query.checkpointed, query.first,
                                    query.last, query.accumulation, query.chunks);
  const auto peaks = parts.memory.peaks(query.layers, query.checkpointed, query.warmup, query.first, query.last);
  const double margin = impl_->margin(query);
  return {time.t_s, time.d_s, peaks.forward * margin, peaks.backward * margin,
          parts.memory.host_bytes(query.layers, query.checkpointed, query.warmup)};
}

}  // namespace gantry::cost
