#pragma once
// Time and memory of pipeline stages: Mist's layer latency over four channels, first/last micro-batch imbalance, stage
// memory (EuroSys '25, section 5 and the released code), and the terms it leaves out. Batched: what depends on the
// policy alone is computed once, each stage then costs a few multiply-adds.
#include <array>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/cost/cluster.h"
#include "gantry/cost/interference.h"
#include "gantry/cost/op_pricing.h"
#include "gantry/cost/policy.h"
#include "gantry/cost/profile.h"
#include "gantry/spec/config.h"

namespace gantry::cost {

class SectionTable;

/// Which terms the model has. `artifact()` is the released code of the paper; the defaults are Gantry's.
struct CostOptions {
  OperatorRules rules{.clamp_idle_only = true};
  bool price_p2p = true;
  bool price_optimizer = true;  ///< AdamW's own seconds, on the copy channels' side of the first forward
  bool flash_attention = true;
  bool chunked_loss = false;   ///< head and loss fused, a chunk of tokens at a time
  std::string dtype = "fp16";  ///< of weights, gradients and activations; masters and moments are fp32
  bool memory_margin = true;   ///< Mist's empirical factor on predicted peaks
  /// The released code's readings where ours differ: no linear biases, untied embedding and head without final norm and
  /// positions, rings sized by the largest section, the attention product's extra buffer, last layer checkpointed
  /// first.
  bool artifact_terms = false;
  static CostOptions artifact();
};

struct StageQuery {
  int layers = 1;
  int checkpointed = 0;
  double warmup = 0;  ///< micro-batches whose activations are alive before the first backward, this one not counted
  bool first = true;
  bool last = true;
  Mesh mesh;
  Policy policy;
  int accumulation = 1;  ///< micro-batches an iteration (G)
  int chunks = 1;        ///< model chunks of the stage (interleaved schedule): each sends its boundary tensors
};

struct StageCost {
  double t_s = 0;                   ///< one micro-batch forward and backward, in the steady state
  double d_s = 0;                   ///< what the first forward and the last backward add
  double memory_forward_bytes = 0;  ///< peaks of one device, margin included
  double memory_backward_bytes = 0;
  double host_bytes = 0;  ///< of one device's share of host memory
  double peak_bytes() const {
    return memory_forward_bytes > memory_backward_bytes ? memory_forward_bytes : memory_backward_bytes;
  }
};

/// One layer's work in one phase: overlapped channels, then serial seconds (tensor-parallel collectives, exposed
/// transfers).
struct LayerStep {
  ChannelTimes alone_s{};
  double serial_s = 0;
  int layer = -1;                   ///< index within the stage; -1: embedding, head or an exposed transfer
  std::string_view name = "layer";  ///< "layer", "embedding", "head", "transfer", "optimizer"
  double recompute_s = 0;           ///< the part of the compute channel's seconds that repeats a forward
};

/// The steps of a stage's phases in execution order; their seconds add up to t_s and d_s.
struct StagePhases {
  std::vector<LayerStep> forward_first;
  std::vector<LayerStep> forward;
  std::vector<LayerStep> backward;
  std::vector<LayerStep> backward_last;
  Factors factors;               ///< interference between the channels
  double p2p_s = 0;              ///< sending the boundary tensor to the next stage
  double weight_gradient_s = 0;  ///< part of the backward's seconds that only makes gradients of weights
};

/// A named part of a stage's time or memory, for explanations.
struct CostTerm {
  std::string name;
  double value = 0;  ///< seconds or bytes
};

struct ProvenanceCount {
  std::array<int, 4> operators{};  ///< by Provenance
  bool estimated_links = false;
};

class CostModel {
 public:
  CostModel(const spec::ModelConfig& model, std::int64_t sequence, const Profile& profile, const Cluster& cluster,
            const CostOptions& options);
  ~CostModel();
  CostModel(CostModel&&) noexcept;

  StageCost price(const StageQuery& query) const;
  StagePhases phases(const StageQuery& query) const;
  /// Parts of the forward or backward peak of one device, margin included.
  std::vector<CostTerm> explain_memory(const StageQuery& query, bool backward) const;
  /// Parts of a micro-batch's seconds; they add up to t_s.
  std::vector<CostTerm> explain_time(const StageQuery& query) const;
  ProvenanceCount provenance() const;

  /// Whether tp fits in a node and divides heads, widths and vocabulary.
  bool divisible(int tensor_parallel) const;
  double device_bytes() const;           ///< memory limit
  double host_bytes_per_device() const;  ///< share of the node's host memory; infinite where it is not limited
  const CostOptions& options() const;
  const Profile& profile() const;
  const Cluster& cluster() const;
  const spec::ModelConfig& model() const;
  std::int64_t sequence() const;

  const SectionTable& sections() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gantry::cost
