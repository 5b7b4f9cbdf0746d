#include "gantry/spec/sharding.h"

#include <fmt/format.h>

namespace gantry::spec {

std::optional<std::string> tensor_parallel_refusal(const ModelConfig& config, std::int64_t ranks) {
  if (ranks < 1) return fmt::format("{} tensor-parallel ranks are not a positive number", ranks);
  if (config.num_heads % ranks != 0) {
    return fmt::format("{} attention heads do not divide over {} tensor-parallel ranks", config.num_heads, ranks);
  }
  if (config.num_kv_heads % ranks != 0 && ranks % config.num_kv_heads != 0) {
    return fmt::format("{} key/value heads neither divide over {} tensor-parallel ranks nor repeat evenly",
                       config.num_kv_heads, ranks);
  }
  if (config.intermediate_size % ranks != 0) {
    return fmt::format("MLP size {} does not divide over {} tensor-parallel ranks", config.intermediate_size, ranks);
  }
  return std::nullopt;
}

bool repeats_kv_heads(const ModelConfig& config, std::int64_t ranks) { return ranks > config.num_kv_heads; }

SymbolicSize shard_elements(const ModelConfig& config, const TensorSpec& tensor, bool kv_heads_repeated) {
  if (tensor.shard == ShardRule::kReplicate) return tensor.numel();
  // With grouped queries the extent tells key and value projections from query and output ones.
  const bool is_kv = tensor.shard == ShardRule::kHeads && config.num_kv_heads < config.num_heads &&
                     tensor.shape[static_cast<std::size_t>(tensor.shard_axis)] == config.kv_size();
  if (is_kv && kv_heads_repeated) return tensor.numel() / config.num_kv_heads;
  return per_rank(tensor.numel());
}

}  // namespace gantry::spec
