#pragma once
// Times and sizes of the three sections of a model (embedding, one block, head and loss) for one micro-batch size and
// tensor-parallel degree: everything that a stage's price needs from the operator graph.
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "gantry/cost/cluster.h"
#include "gantry/cost/op_pricing.h"
#include "gantry/cost/stage.h"
#include "gantry/spec/config.h"

namespace gantry::cost {

/// Of one rank; seconds and bytes. Weights and gradients take 2 bytes an element (4 in fp32), masters and moments 12.
struct Section {
  double elements = 0;  ///< of weights
  double forward_s = 0;
  double backward_s = 0;         ///< without adding gradients up; of a block: where it is checkpointed
  double rerun_s = 0;            ///< what the backward of a block that is not checkpointed computes again besides
  double weight_gradient_s = 0;  ///< part of backward_s that only makes gradients of weights
  double accumulate_s = 0;       ///< adding the gradients of one micro-batch to those before
  double optimizer_s = 0;        ///< AdamW over all elements
  double tp_forward_s = 0;       ///< tensor-parallel collectives
  double tp_backward_s = 0;
  double tp_rerun_s = 0;  ///< as rerun_s
  double saved_checkpointed = 0;
  double saved = 0;
  double peak_forward = 0;
  double peak_backward = 0;
  double checkpointed_peak_more = 0;  ///< of peak_backward, where the block is checkpointed
  double output = 0;
  double scores = 0;
};

struct Sections {
  Section pre;
  Section block;
  Section post;
};

struct SectionKey {
  int micro_batch = 1;
  int tensor_parallel = 1;
  LayerMode mode = LayerMode::kStore;
  bool sequence_parallel = false;
  auto operator<=>(const SectionKey&) const = default;
};

/// Prices each key once; safe to call from several threads.
class SectionTable {
 public:
  SectionTable(const spec::ModelConfig& model, std::int64_t sequence, const Profile& profile, const Cluster& cluster,
               const CostOptions& options);
  const Sections& at(const SectionKey& key) const;
  const std::vector<OperatorLine>& lines(const SectionKey& key) const;
  ProvenanceCount provenance() const;

 private:
  struct Entry {
    Sections sections;
    std::vector<OperatorLine> lines;
  };
  const Entry& entry(const SectionKey& key) const;
  const Entry& locked_entry(const SectionKey& key) const;
  Entry make(const SectionKey& key) const;

  spec::ModelConfig model_;  // one layer
  std::int64_t sequence_;
  const Profile& profile_;
  const Cluster& cluster_;
  const CostOptions& options_;
  OperatorPricer pricer_;
  mutable std::mutex mutex_;
  mutable std::map<SectionKey, Entry> entries_;
  mutable bool estimated_links_ = false;
};

/// Bytes of a weight or gradient element of that dtype: 2, or 4 for fp32.
int element_bytes(std::string_view dtype);

}  // namespace gantry::cost
