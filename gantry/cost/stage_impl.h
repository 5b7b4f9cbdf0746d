#pragma once
// State of a CostModel; for stage*.cpp only.
#include "gantry/cost/stage.h"
#include "gantry/cost/stage_parts.h"

namespace gantry::cost {

struct CostModel::Impl {
  spec::ModelConfig model;
  std::int64_t sequence;
  Profile profile;
  Cluster cluster;
  CostOptions options;
  SectionTable sections;

  Impl(const spec::ModelConfig& m, std::int64_t s, const Profile& p, const Cluster& c, const CostOptions& o)
      : model(m),
        sequence(s),
        profile(p),
        cluster(c),
        options(o),
        sections(model, sequence, profile, cluster, options) {}

  StageParts parts(const StageQuery& query) const {
    return stage_parts(sections, profile, cluster, options, model.tied_embeddings, query.mesh, query.policy,
                       query.accumulation);
  }
  const Factors& factors(const StageQuery& query) const {
    const GroupShape group = data_parallel_group(query.mesh, query.policy);
    return profile.factors(group.per_node, group.nodes);
  }
  const Sections& section_of(const StageQuery& query) const {
    const Policy& policy = query.policy;
    return sections.at({policy.micro_batch, policy.tensor_parallel, policy.mode, policy.sequence_parallel});
  }
  double margin(const StageQuery& query) const {
    return cost::memory_margin(model, sequence, query.policy, query.first, query.last, options);
  }
};

}  // namespace gantry::cost
