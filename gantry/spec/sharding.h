#pragma once
// What tensor parallelism does to the sizes of a model. The rules themselves are fields of the tensor table; here they
// become arithmetic.
#include <cstdint>
#include <optional>
#include <string>

#include "gantry/spec/config.h"
#include "gantry/spec/symbolic_size.h"
#include "gantry/spec/tensor_table.h"

namespace gantry::spec {

/// Why `config` cannot be split over `ranks`, as a sentence; nothing when it can. Attention heads and MLP columns must
/// divide evenly; key/value heads must divide or be repeated evenly. The vocabulary need not divide: the last rank then
/// holds fewer rows.
std::optional<std::string> tensor_parallel_refusal(const ModelConfig& config, std::int64_t ranks);

/// True when `ranks` exceeds the key/value heads, so that each rank holds one whole, repeated head.
bool repeats_kv_heads(const ModelConfig& config, std::int64_t ranks);

/// Elements of `tensor` on one rank: all of them where it is replicated, numel/tp where it is split. With
/// `kv_heads_repeated` the key and value projections of grouped-query attention keep one head a rank, whatever tp is.
SymbolicSize shard_elements(const ModelConfig& config, const TensorSpec& tensor, bool kv_heads_repeated = false);

}  // namespace gantry::spec
