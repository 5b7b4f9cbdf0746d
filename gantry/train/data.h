#pragma once
// Batches for a model: from a token data set to tensors.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gantry/base/json.h"
#include "gantry/models/language_model.h"
#include "gantry/text/tokenizer.h"
#include "gantry/train/options.h"

namespace gantry::train {

struct TrainBatch {
  models::ModelInputs inputs;
  at::Tensor labels;         ///< int64 [B, T], shifted for decoders, masked tokens for encoders; -100 does not count
  std::int64_t counted = 0;  ///< labels that count
  std::int64_t tokens = 0;   ///< B * T
};

/// The training stream and the held-out stream of one run.
class TrainData {
 public:
  /// Tokenises (or finds in the cache folder) the sources of `options`. InputError naming the file for bad data.
  TrainData(const TrainOptions& options, const text::Tokenizer& tokenizer, const spec::ModelConfig& config,
            const std::filesystem::path& cache);
  ~TrainData();

  /// The sequences of the next optimiser step in micro-batches of at most `micro_batch` (split_step). Tokens and masked
  /// positions do not depend on it.
  std::vector<TrainBatch> next(std::int64_t micro_batch);
  /// The first `sequences` that next() will give, as one batch, without a step.
  TrainBatch peek(std::int64_t sequences) const;
  /// Position before the next step, for a checkpoint; and back.
  base::OrderedJson position() const;
  void seek(const base::Json& position);
  /// The first `count` held-out batches, of --batch sequences, or of a step's where that is auto, each in micro-batches
  /// as in next(). The same in every call; empty without held-out data.
  std::vector<TrainBatch> validation(std::int64_t count, std::int64_t micro_batch) const;
  /// "1.2 M tokens in 340 documents, ..."
  std::string description() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Masked-LM corruption, in place: 15 % of the tokens are predicted; of those 80 % become the mask token, 10 % a random
/// token, 10 % stay. Deterministic in `seed` and `draw`. Method: BERT, Devlin et al. 2019, section 3.1.
void mask_tokens(at::Tensor& ids, at::Tensor& labels, std::int32_t mask_id, std::int64_t vocab_size, std::uint64_t seed,
                 std::uint64_t draw);

}  // namespace gantry::train
