#pragma once
// The operator graph: what a model computes, node by node in execution order, with sizes as polynomials over
// micro-batch, sequence length and tensor-parallel degree. The planner derives time (flops, bytes, collectives) and
// memory (liveness of outputs and of saved tensors, workspaces) from it; nothing else lists the operators of a model.
//
// Conventions
// - All sizes are those of one rank. Column-parallel linears (query/key/value, gate/up, the head) and all that follows
//   up to the next row-parallel linear (attention output, MLP down) divide by tp; norms, residuals and hidden dropout
//   are computed in full on every rank. A row-parallel linear and the split embedding end in an all-reduce; backward
//   has one where a column-parallel linear begins. A collective's bytes are the size of the reduced tensor; with tp = 1
//   it does not happen.
// - With sequence parallelism (Megatron's; Korthikanti et al. 2022, section 4.2.2) norms, residuals and hidden dropout
//   work on S/tp tokens of each sequence, and so large are the tensors between two parallel regions. A reduce-scatter
//   and an all-gather take the place of each all-reduce and move the same bytes together, so all_reduce_bytes stays as
//   it is; a column-parallel linear keeps its share of the input and gathers it once more in backward.
// - A tensor is one storage; views and reshapes are neither nodes nor tensors. Parameters are not tensors of the graph:
//   nodes name them by index into the tensor table. Neither are the rotary tables, which all layers share.
// - Saved tensors are what autograd keeps from a node's forward to its backward. A tensor saved by several nodes is
// kept
//   once; saved_bytes() counts so.
// - A multiply-add is two flops. Flops of element-wise work are nominal counts per element (a dozen at most); such
// nodes
//   are bound by bytes.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/spec/config.h"
#include "gantry/spec/symbolic_size.h"
#include "gantry/spec/tensor_table.h"

namespace gantry::spec {

namespace internal {
class GraphBuilder;
}

enum class OpKind {
  kEmbedding,
  kNorm,
  kLinear,
  kRope,
  kAttention,
  kGatedActivation,
  kActivation,
  kResidualAdd,
  kDropout,
  kHead,  ///< the projection to the vocabulary
  kLoss,
};

/// How an activation function's backward gets its derivative.
enum class ActivationMemory {
  kStore,      ///< keeps the input; the next linear keeps the output. Gated: input, activated gate and product.
  kInPlace,    ///< keeps the output and a side flag; ungated only (a gated unit takes kRecompute)
  kRecompute,  ///< keeps the input; the output is made again for the next linear's backward
  kRerun,      ///< keeps nothing: the block's first matrices run again from their input
  kInt8,       ///< keeps the input in int8, as do the block's first matrices theirs. Lossy
};

enum class NormMemory {
  kStore,      ///< keeps the input and the row statistics; the next linear keeps the output
  kInPlace,    ///< keeps the output, shared with the next linear, and 1/deviation (see numbers_in_last_bits)
  kRecompute,  ///< keeps the input and the statistics; the output is made again for the next linear's backward
  kInt8,       ///< keeps the normalised input in int8 and 1/deviation. Lossy
};

enum class AttentionMemory {
  kStoreScores,  ///< as kStore, and the softmax's input, which nothing reads: torch's math path until 1.10
  kStore,        ///< keeps Q, K, V, probabilities, dropped probabilities and mask: torch's math path since 1.11
  kInPlace,      ///< keeps Q, K, V, probabilities and mask
  kFlash,        ///< keeps Q, K, V, output and the rows' log-sum-exp (see numbers_in_last_bits); no S x S matrix ever
  kRerun,        ///< keeps the projections' input and the output; projections and flash attention run again
  kInt8,         ///< keeps inputs of projections and Q, K, V before rotation in int8; flash attention runs again. Lossy
};
inline bool is_flash(AttentionMemory memory) { return memory >= AttentionMemory::kFlash; }

/// Random masks of dropout, and the side flag of in-place activations.
enum class MaskMemory {
  kActivation,  ///< as wide as an activation: torch's dropout on the CPU (a side flag takes a byte)
  kByte,        ///< torch's dropout on CUDA
  kBit,
  kReplay,  ///< no bytes: made again from the seed; the flag sits in the value's last bit
};

enum class LossMemory {
  kStore,    ///< logits in full, log-probabilities in fp32 kept
  kChunked,  ///< head and loss in one node, a chunk of tokens at a time
};

enum class GraphPurpose {
  kTraining,
  kInference,  ///< S new tokens against C keys, one logits row a sequence; no dropout, no loss, nothing saved
};

/// The defaults are stock torch on CUDA in fp32.
struct GraphOptions {
  GraphPurpose purpose = GraphPurpose::kTraining;
  int activation_bytes = 4;  ///< 4: fp32; 2: bf16 or fp16 (statistics and the loss stay fp32)
  int weight_bytes = 4;
  ActivationMemory activation = ActivationMemory::kStore;
  NormMemory norm = NormMemory::kStore;
  AttentionMemory attention = AttentionMemory::kStore;
  MaskMemory masks = MaskMemory::kByte;            ///< of hidden dropout, and of what follows where that is not set
  std::optional<MaskMemory> attention_masks = {};  ///< kReplay: also a mask in the sign of the probabilities
  std::optional<MaskMemory> side_flags = {};       ///< of in-place activations
  /// Log-sums of AttentionMemory::kFlash and 1/deviation of NormMemory::kInPlace take no bytes in fp32, for heads and
  /// norms of at least 32 elements: they lie in the last bits of the output. So do Gantry's layers on a CPU.
  bool numbers_in_last_bits = false;
  LossMemory loss = LossMemory::kStore;
  std::int64_t loss_chunk_tokens = 1024;  ///< tokens of a chunk of LossMemory::kChunked
  int loss_bytes = 4;                     ///< of a log-probability; 2: the loss is computed in half precision
  bool kv_heads_repeated = false;         ///< tp exceeds num_kv_heads; see repeats_kv_heads()
  bool sequence_parallel = false;         ///< training only; sizes hold for tp > 1
};

/// An edge of the graph, from its producer to every node that lists it as an input.
struct GraphTensor {
  std::string name;
  int producer = -1;  ///< node index; -1: an input of the graph
  std::vector<SymbolicSize> shape;
  SymbolicSize bytes;
  bool has_gradient = true;  ///< false for ids, masks and statistics
};

/// A part of a node's backward, in order.
struct BackwardStep {
  std::vector<int> makes;        ///< inputs whose gradients it makes
  std::vector<int> frees;        ///< saved tensors, and results (for their gradients), that no later step needs
  SymbolicSize workspace_bytes;  ///< while it runs
};

struct GraphNode {
  OpKind kind = OpKind::kLinear;
  std::string name;                    ///< "layers.3.mlp.down"
  int layer = -1;                      ///< block index; -1 before the first and after the last block
  std::vector<int> inputs;             ///< tensors read
  std::vector<int> outputs;            ///< tensors made: results first, then masks and statistics kept for backward
  std::vector<int> saved;              ///< the inputs and outputs kept for backward
  std::vector<int> weights;            ///< indices into the tensor table
  std::int64_t head_dim = 0;           ///< of attention and rotary positions
  SymbolicSize weight_elements;        ///< of `weights`, on one rank
  SymbolicSize matrix_flops;           ///< forward, of matrix products
  SymbolicSize vector_flops;           ///< forward, element-wise
  SymbolicSize backward_matrix_flops;  ///< including what a memory mode computes again
  SymbolicSize backward_vector_flops;
  SymbolicSize bytes_read;                ///< forward: inputs, weights, intermediates
  SymbolicSize bytes_written;             ///< forward: outputs, intermediates
  SymbolicSize backward_bytes;            ///< read and written: saved tensors, weights, all gradients
  SymbolicSize workspace_bytes;           ///< forward, beyond inputs and outputs, free again at the end of the node
  SymbolicSize backward_workspace_bytes;  ///< the same in backward, beyond saved tensors and gradients
  // What a memory mode computes again or unpacks in backward: part of the backward flops, beyond backward_bytes.
  SymbolicSize extra_matrix_flops;
  SymbolicSize extra_vector_flops;
  SymbolicSize extra_bytes;
  /// Where the gradients are not made in one go: steps whose workspaces are within backward_workspace_bytes.
  std::vector<BackwardStep> backward_steps;
  SymbolicSize score_bytes;                ///< attention: one matrix of scores; zero for flash attention
  SymbolicSize all_reduce_bytes;           ///< zero where no collective follows
  SymbolicSize backward_all_reduce_bytes;  ///< of the gradient of the first input
  SymbolicSize backward_all_gather_bytes;  ///< sequence parallelism: the first input, gathered again (twice in kRerun)

  SymbolicSize forward_flops() const { return matrix_flops + vector_flops; }
};

/// Nodes [first, end).
struct NodeRange {
  int first = 0;
  int end = 0;
};

class OperatorGraph {
 public:
  const std::vector<GraphNode>& nodes() const& { return nodes_; }
  const std::vector<GraphTensor>& tensors() const& { return tensors_; }
  // A loop over the nodes of a temporary graph would outlive it.
  void nodes() && = delete;
  void tensors() && = delete;
  int num_layers() const { return static_cast<int>(layers_.size()); }

  NodeRange all() const { return {0, static_cast<int>(nodes_.size())}; }
  NodeRange before_layers() const { return {0, layers_.front().first}; }
  NodeRange layer(int index) const { return layers_.at(static_cast<std::size_t>(index)); }
  NodeRange after_layers() const { return {layers_.back().end, all().end}; }

  /// Tensors that nodes of the range read and none of them makes: all that a checkpointed block keeps.
  std::vector<int> inputs_of(NodeRange range) const;
  /// Tensors that the range keeps for backward, each once, without those that an earlier node keeps already; so ranges
  /// that cover the graph add up to the whole.
  std::vector<int> saved_in(NodeRange range) const;
  SymbolicSize saved_bytes(NodeRange range) const { return bytes_of(saved_in(range)); }
  SymbolicSize bytes_of(const std::vector<int>& tensors) const;
  SymbolicSize forward_flops(NodeRange range) const;
  SymbolicSize matrix_flops(NodeRange range) const;
  SymbolicSize backward_flops(NodeRange range) const;

 private:
  friend class internal::GraphBuilder;
  std::vector<GraphNode> nodes_;
  std::vector<GraphTensor> tensors_;
  std::vector<NodeRange> layers_;
};

/// Builds the graph of `config`, whose tensor table is `tensor_table(config)`. Dropout nodes exist where the config's
/// rates are above 0. Throws InputError for an option outside its range.
OperatorGraph operator_graph(const ModelConfig& config, const GraphOptions& options = {});

std::string_view op_kind_name(OpKind kind);

}  // namespace gantry::spec
