// Attention, rotary positions, head and loss: the nodes whose sizes are not those of their inputs.
#include "gantry/spec/graph_builder_internal.h"

namespace gantry::spec::internal {
namespace {

constexpr int kRopeFlops = 3;     // an element: two products and a sum
constexpr int kSoftmaxFlops = 6;  // a score: scale, maximum, difference, exponential, sum, quotient
constexpr double kFp32Bytes = 4;

}  // namespace

std::pair<int, int> GraphBuilder::rope(int q, int k) {
  GraphNode node = start(OpKind::kRope, "attention.rope");
  node.inputs = {q, k};
  node.head_dim = config_.head_dim;
  node.vector_flops = node.backward_vector_flops = (elements(q) + elements(k)) * kRopeFlops;
  // Cosines and sines of half a head.
  const SymbolicSize table = SymbolicSize(Symbol::kSequence) * config_.head_dim * kFp32Bytes;
  node.bytes_read = node.backward_bytes = table;
  const auto rotated = [&](std::string_view name, int x) {
    return output(node, name, graph_.tensors_[static_cast<std::size_t>(x)].shape, options_.activation_bytes, true);
  };
  const int rotated_q = rotated("q", q);
  const int rotated_k = rotated("k", k);
  if (!training()) node.backward_bytes = 0;
  const bool int8 = training() && options_.attention == AttentionMemory::kInt8;
  const bool again = int8 || (training() && options_.attention == AttentionMemory::kRerun);
  for (const auto& [x, y] : {std::pair{q, rotated_q}, std::pair{k, rotated_k}}) {
    if (int8) stash(node, x);
    if (!again) continue;
    // Rotated where it lies.
    std::set<int> needs = needs_of({x});
    needs.erase(x);
    needs.insert(y);
    regenerate(y, std::move(needs));
  }
  finish_node(std::move(node), again);
  return {rotated_q, rotated_k};
}

void GraphBuilder::attention_products(GraphNode& node) const {
  const SymbolicSize scores = per_rank(config_.num_heads) * tokens() * keys();
  const bool flash = is_flash(options_.attention);
  // A flash kernel skips the tiles above the diagonal: of S x S scores S(S+1)/2 remain.
  const bool skips = flash && training() && config_.is_decoder();
  const SymbolicSize kept =
      skips ? per_rank(config_.num_heads) * tokens() * (SymbolicSize(Symbol::kSequence) + 1) * 0.5 : scores;
  node.matrix_flops = kept * config_.head_dim * 4;
  node.vector_flops = kept * kSoftmaxFlops;
  // Four products of the same size; a flash kernel computes the scores again.
  node.backward_matrix_flops = node.matrix_flops * (flash ? 2.5 : 2.0);
  node.backward_vector_flops = node.vector_flops * (flash ? 2 : 1);
}

void GraphBuilder::attention_matrices(GraphNode& node) {
  const std::vector<SymbolicSize> shape = {Symbol::kBatch, per_rank(config_.num_heads), Symbol::kSequence, keys()};
  SymbolicSize scores = 1;
  for (const SymbolicSize& extent : shape) scores *= extent;
  const SymbolicSize matrix_bytes = node.score_bytes = scores * options_.activation_bytes;
  node.bytes_read += matrix_bytes * 2;  // softmax and the second product
  // torch until 1.10 kept the scores for a backward that did not read them.
  const bool keeps_scores = training() && options_.attention == AttentionMemory::kStoreScores;
  if (!keeps_scores) node.bytes_written += matrix_bytes;  // as an output they count below
  if (!training()) {
    node.workspace_bytes = matrix_bytes * 2;
    node.bytes_written += matrix_bytes;
    return;
  }
  if (!keeps_scores) node.workspace_bytes = matrix_bytes;  // scores, freed after the softmax
  node.backward_workspace_bytes = matrix_bytes * 2;        // gradients of probabilities and of scores
  node.saved.push_back(output(node, "probabilities", shape, options_.activation_bytes, false));
  if (config_.attention_dropout <= 0) {
    attention_backward(node, matrix_bytes);
    return;
  }
  node.bytes_read += matrix_bytes;
  if (options_.attention != AttentionMemory::kInPlace) {
    node.saved.push_back(output(node, "dropped", shape, options_.activation_bytes, false));
  } else {
    node.workspace_bytes += matrix_bytes;
    node.bytes_written += matrix_bytes;
    node.extra_bytes = matrix_bytes * 2;  // dropped again
  }
  save_mask(node, scores, options_.attention_masks.value_or(options_.masks));
  attention_backward(node, matrix_bytes);
}

void GraphBuilder::attention_backward(GraphNode& node, const SymbolicSize& matrix_bytes) const {
  const int q = node.inputs[0];
  const int k = node.inputs[1];
  const int v = node.inputs[2];
  const int probabilities = node.saved[3];
  const bool drops = config_.attention_dropout > 0;
  const bool keeps_dropped = drops && options_.attention != AttentionMemory::kInPlace;
  // The gradient of what V was multiplied with; beside it the dropped probabilities, where they are made again.
  BackwardStep second{{v}, {v, node.outputs[0]}, matrix_bytes * (drops && !keeps_dropped ? 2 : 1)};
  if (keeps_dropped) second.frees.push_back(node.saved[4]);
  BackwardStep softmax{{}, {probabilities}, matrix_bytes * 2};  // gradients of probabilities and of scores
  const bool has_mask = node.saved.size() > (keeps_dropped ? 5U : 4U);
  if (has_mask) {
    const int mask = node.saved.back();
    node.backward_steps = {second, {{}, {mask}, matrix_bytes * 2}, softmax};
  } else {
    node.backward_steps = {second, softmax};
  }
  node.backward_steps.push_back({{q, k}, {q, k}, matrix_bytes});
}

void GraphBuilder::flash_attention(GraphNode& node) {
  const int y = node.outputs[0];
  const SymbolicSize row_bytes = per_rank(config_.num_heads) * tokens() * kFp32Bytes;
  node.backward_workspace_bytes = row_bytes;  // the rows' sums of dO * O
  if (options_.attention == AttentionMemory::kFlash) {
    node.saved = node.inputs;
    node.saved.push_back(y);
    if (!in_last_bits(config_.head_dim)) {
      node.saved.push_back(output(node, "logsumexp", {per_rank(config_.num_heads) * tokens()}, kFp32Bytes, false));
    }
    return;
  }
  for (const int x : std::vector<int>(node.inputs)) {
    if (!regenerated(x)) stash(node, x);
  }
  const std::set<int> needs = needs_of(node.inputs);
  // Q, K and V, and what the second run of the forward leaves.
  node.backward_workspace_bytes += graph_.bytes_of({needs.begin(), needs.end()}) + bytes(y) + row_bytes;
}

int GraphBuilder::attention(int q, int k, int v) {
  GraphNode node = start(OpKind::kAttention, "attention");
  node.inputs = {q, k, v};
  node.head_dim = config_.head_dim;
  attention_products(node);
  const int y = result(node, {Symbol::kBatch, Symbol::kSequence, q_extent()});
  if (!is_flash(options_.attention)) {
    if (training()) node.saved = {q, k, v};
    attention_matrices(node);
    if (training() && options_.attention == AttentionMemory::kStoreScores) {
      const auto shape = graph_.tensors_[static_cast<std::size_t>(node.saved[3])].shape;
      node.saved.push_back(output(node, "scores", shape, options_.activation_bytes, false));
    }
  } else if (training()) {
    flash_attention(node);
  }
  if (!training() && config_.is_decoder()) {
    // Keys and values of earlier tokens come from the cache.
    node.bytes_read += SymbolicSize(Symbol::kBatch) * Symbol::kContext * kv_extent() * (2 * options_.activation_bytes);
  }
  const bool again = options_.attention == AttentionMemory::kRerun || options_.attention == AttentionMemory::kInt8;
  finish_node(std::move(node), again && training());
  return y;
}

int GraphBuilder::head(int hidden, const std::vector<int>& weights, bool bias) {
  GraphNode node = start(OpKind::kHead, "head");
  node.inputs = {hidden};
  node.weights = weights;
  const SymbolicSize positions = training() || !config_.is_decoder() ? Symbol::kSequence : SymbolicSize(1);
  const SymbolicSize vocabulary = per_rank(config_.vocab_size);
  const int logits = result(node, {Symbol::kBatch, positions, vocabulary});
  gather_input(node, hidden);
  node.matrix_flops = elements(logits) * config_.hidden_size * 2;
  node.backward_matrix_flops = node.matrix_flops * 2;
  if (bias) node.vector_flops = node.backward_vector_flops = elements(logits);
  node.backward_all_reduce_bytes = whole_bytes(hidden);
  save_unless_regenerated(node, hidden);
  finish_node(std::move(node));
  return logits;
}

void GraphBuilder::loss(int logits, int labels) {
  GraphNode node = start(OpKind::kLoss, "loss");
  node.inputs = {logits, labels};
  node.vector_flops = elements(logits) * kSoftmaxFlops;
  node.backward_vector_flops = elements(logits) * 2;
  output(node, "", {1}, kFp32Bytes, true);
  const int log_probabilities =
      output(node, "log_probabilities", {tokens(), per_rank(config_.vocab_size)}, options_.loss_bytes, false);
  node.saved = {log_probabilities, labels};
  // Logits narrower than the loss are widened first.
  if (options_.activation_bytes < options_.loss_bytes) node.workspace_bytes = elements(logits) * options_.loss_bytes;
  node.all_reduce_bytes = tokens() * (3 * kFp32Bytes);  // a row's maximum, sum of exponentials and target logit
  finish_node(std::move(node));
}

void GraphBuilder::chunked_loss(int hidden, int labels, const std::vector<int>& weights, bool bias) {
  GraphNode node = start(OpKind::kLoss, "head_and_loss");
  node.inputs = {hidden, labels};
  node.weights = weights;
  const SymbolicSize vocabulary = per_rank(config_.vocab_size);
  const SymbolicSize logits = tokens() * vocabulary;
  node.matrix_flops = logits * config_.hidden_size * 2;
  node.backward_matrix_flops = node.matrix_flops * 3;  // the logits again, then both gradients
  node.vector_flops = logits * (kSoftmaxFlops + (bias ? 1 : 0));
  node.backward_vector_flops = node.vector_flops + logits * 2;
  output(node, "", {1}, kFp32Bytes, true);
  save_unless_regenerated(node, hidden);
  node.saved.push_back(labels);
  node.saved.push_back(output(node, "logsumexp", {tokens()}, kFp32Bytes, false));
  gather_input(node, hidden);
  const SymbolicSize chunk = vocabulary * options_.loss_chunk_tokens * options_.loss_bytes;
  node.workspace_bytes += chunk;
  node.backward_workspace_bytes += chunk;
  node.all_reduce_bytes = tokens() * (3 * kFp32Bytes);
  node.backward_all_reduce_bytes = whole_bytes(hidden);
  finish_node(std::move(node));
}

void GraphBuilder::head_and_loss(int hidden, const std::vector<int>& weights, bool bias) {
  if (!training()) {
    head(hidden, weights, bias);
    return;
  }
  const int labels = input("labels", {Symbol::kBatch, Symbol::kSequence});
  if (options_.loss == LossMemory::kChunked) {
    chunked_loss(hidden, labels, weights, bias);
  } else {
    loss(head(hidden, weights, bias), labels);
  }
}

}  // namespace gantry::spec::internal
