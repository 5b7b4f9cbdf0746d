#pragma once
// Makes the nodes of an operator graph. One method a kind of node; graph_families.cpp calls them in execution order.
#include <initializer_list>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gantry/spec/operator_graph.h"

namespace gantry::spec::internal {

/// How a linear's matrix lies over tensor-parallel ranks.
enum class Split { kNone, kColumns, kRows };

/// One output of a linear; `extent` is its width on one rank.
struct LinearPart {
  std::string_view name;
  SymbolicSize extent;
};

/// What a linear does about its own memory in training.
enum class LinearMemory {
  kInput,  ///< keeps its input, unless the producer makes that again
  kRerun,  ///< and runs again in backward for those that read its outputs
  kInt8,   ///< keeps its input in int8
};

struct LinearSpec {
  std::string_view name;
  std::vector<int> weights;
  SymbolicSize in;  ///< width of the input on one rank
  std::vector<LinearPart> parts;
  Split split = Split::kNone;
  bool bias = false;
  LinearMemory memory = LinearMemory::kInput;
};

class GraphBuilder {
 public:
  GraphBuilder(const ModelConfig& config, const GraphOptions& options);

  const ModelConfig& config() const { return config_; }
  const GraphOptions& options() const { return options_; }
  bool training() const { return options_.purpose == GraphPurpose::kTraining; }

  /// Width of all queries, and of all keys or values, on one rank.
  SymbolicSize q_extent() const { return per_rank(config_.q_size()); }
  SymbolicSize kv_extent() const;

  /// Indices of the tensors of a layer (-1: outside the layers) whose names contain one of `parts`, in that order.
  std::vector<int> weights(std::initializer_list<std::string_view> parts) const;

  void begin_layer();
  void end_layer();

  int input(std::string name, const std::vector<SymbolicSize>& shape);  // int64 ids
  int embedding(const std::vector<int>& ids, std::vector<int> weights);
  int norm(std::string_view name, int x, std::vector<int> weights);
  std::vector<int> linear(int x, const LinearSpec& spec);
  std::pair<int, int> rope(int q, int k);
  int attention(int q, int k, int v);
  int activation(std::string_view name, int x);
  int gated_activation(std::string_view name, int gate, int up);
  int dropout(std::string_view name, int x);  // returns x itself where nothing is dropped
  int residual_add(std::string_view name, int x, int residual);
  void head_and_loss(int hidden, const std::vector<int>& weights, bool bias);

  OperatorGraph finish() { return std::move(graph_); }

 private:
  SymbolicSize tokens() const { return SymbolicSize(Symbol::kBatch) * Symbol::kSequence; }
  /// Tokens of a sequence that one rank holds between two tensor-parallel regions.
  SymbolicSize hidden_positions() const {
    return options_.sequence_parallel ? per_rank(Symbol::kSequence) : SymbolicSize(Symbol::kSequence);
  }
  /// Bytes of a hidden state of all tokens.
  SymbolicSize whole_bytes(int tensor) const {
    return options_.sequence_parallel ? bytes(tensor) * Symbol::kTensorParallel : bytes(tensor);
  }
  /// Sequence parallelism: the whole input that a column-parallel matrix reads, and its gradient before it is split.
  void gather_input(GraphNode& node, int x) const;
  /// Sequence parallelism: the whole result before its reduce-scatter, and its gathered gradient.
  void scatter_result(GraphNode& node, int y) const;
  SymbolicSize keys() const;  ///< keys that a query sees at most
  SymbolicSize bytes(int tensor) const { return graph_.tensors_[static_cast<std::size_t>(tensor)].bytes; }
  SymbolicSize elements(int tensor) const;

  GraphNode start(OpKind kind, std::string_view name) const;
  /// Declares an output of the node under construction.
  int output(GraphNode& node, std::string_view name, const std::vector<SymbolicSize>& shape, double element_bytes,
             bool has_gradient);
  int result(GraphNode& node, const std::vector<SymbolicSize>& shape) {
    return output(node, "", shape, options_.activation_bytes, true);
  }
  int add_tensor(GraphTensor tensor);
  /// Whether rows of `width` elements carry a number of fp32 in their last bits: one bit an element (kLastBitsWidth of
  /// gantry/kernels/cpu/last_bits.h).
  bool in_last_bits(std::int64_t width) const {
    return options_.numbers_in_last_bits && options_.activation_bytes == 4 && width >= 32;
  }
  /// A mask over `elements` kept for backward; nothing where masks are replayed.
  void save_mask(GraphNode& node, const SymbolicSize& elements, MaskMemory masks);
  bool regenerated(int x) const { return !regenerated_[static_cast<std::size_t>(x)].empty(); }
  /// Tensors that must be there again before all of `tensors` are: themselves and what they are made from.
  std::set<int> needs_of(const std::vector<int>& tensors) const;
  void regenerate(int x, std::set<int> needs) { regenerated_[static_cast<std::size_t>(x)] = std::move(needs); }
  /// Keeps `x` unless it is made again in backward; then its bytes are workspace.
  void save_unless_regenerated(GraphNode& node, int x) const;
  /// Keeps `x` in int8; it is made from that in backward.
  void stash(GraphNode& node, int x);
  /// What the activation node keeps of its inputs and its output.
  void keep_activation(GraphNode& node, int y);
  /// Fills in what follows from the rest and appends the node. `again`: backward repeats its forward.
  void finish_node(GraphNode node, bool again = false);
  void add_memory_mode(GraphNode& node, bool again);
  void add_backward(GraphNode& node, const SymbolicSize& weight_bytes) const;

  void attention_products(GraphNode& node) const;
  void attention_matrices(GraphNode& node);
  void flash_attention(GraphNode& node);
  /// Backward of attention that holds its matrices: the second product, dropout, the softmax, the first product.
  void attention_backward(GraphNode& node, const SymbolicSize& matrix_bytes) const;
  int head(int hidden, const std::vector<int>& weights, bool bias);
  void loss(int logits, int labels);
  void chunked_loss(int hidden, int labels, const std::vector<int>& weights, bool bias);

  const ModelConfig& config_;
  const GraphOptions& options_;
  std::vector<TensorSpec> table_;
  std::vector<std::vector<int>> table_of_layer_;  // [layer + 1]
  OperatorGraph graph_;
  std::vector<std::set<int>> regenerated_;  // by tensor: needs_of() what backward makes again, else empty
  std::vector<int> packed_;                 // by the node at hand: tensors kept in int8
  int layer_ = -1;
};

void build_llama(GraphBuilder& graph);
void build_gpt2(GraphBuilder& graph);
void build_bert(GraphBuilder& graph);

}  // namespace gantry::spec::internal
