#pragma once
// The tensor table: every parameter of a model once, in the order in which a forward pass meets it. Loader, saver,
// optimiser, re-sharder, quantiser and memory model all read this table; there is no second list of layers.
#include <cstdint>
#include <string>
#include <vector>

#include "gantry/spec/config.h"

namespace gantry::spec {

/// What a tensor is for; `info` sums memory by it.
enum class TensorRole { kEmbedding, kPosition, kAttention, kMlp, kNorm, kHead };

/// How a tensor is split over a tensor-parallel group.
enum class ShardRule {
  kReplicate,  ///< every rank holds all of it
  kSplit,      ///< `shard_axis` is split evenly
  kHeads,      ///< `shard_axis` is split by whole attention heads (key/value heads are repeated when there are fewer)
  kFusedQkv,   ///< `shard_axis` holds query, key and value one after another; each is split by heads
};

/// A change of layout between a GGUF file and the Hugging Face form that this table describes.
enum class GgufTransform {
  kNone,
  kUnpermuteRope,  ///< rows are stored for interleaved rotary pairs; q or k projections of Llama
  kTranspose,      ///< GGUF stores [out, in], the table [in, out] (GPT-2's Conv1D)
};

struct TensorSpec {
  std::string name;                 ///< Hugging Face name
  std::vector<std::int64_t> shape;  ///< as stored in a Hugging Face file
  TensorRole role;
  int layer;  ///< block index, -1 outside the blocks
  ShardRule shard = ShardRule::kReplicate;
  int shard_axis = -1;
  bool in_out = false;        ///< a matrix stored [in, out] instead of [out, in]
  bool weight_decay = false;  ///< matrices decay; biases, norms do not
  std::string gguf_name;      ///< name in a GGUF file, "" where GGUF has none
  GgufTransform gguf_transform = GgufTransform::kNone;
  bool optional = false;  ///< may be absent from a file (it is derived or tied); never allocated twice

  std::int64_t numel() const;
};

/// All parameters of `config`. Query, key and value projections (and gate and up projections) are neighbours, so that a
/// flat allocation in table order lets one matrix product serve them all.
std::vector<TensorSpec> tensor_table(const ModelConfig& config);

/// Sum of numel() over the table.
std::int64_t parameter_count(const ModelConfig& config);

/// Names found in some checkpoints that carry no information (causal-mask buffers, tied copies); a loader skips them.
bool is_ignorable_tensor(const ModelConfig& config, const std::string& name);

std::string_view role_name(TensorRole role);

}  // namespace gantry::spec
