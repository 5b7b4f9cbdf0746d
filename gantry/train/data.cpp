#include "gantry/train/data.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "gantry/base/check.h"
#include "gantry/base/progress.h"
#include "gantry/base/random.h"
#include "gantry/text/dataset.h"
#include "gantry/text/dataset_batch.h"
#include "gantry/train/micro_batch.h"

namespace gantry::train {
namespace {

at::Tensor to_tensor(const std::vector<std::int32_t>& values, std::int64_t rows, std::int64_t length) {
  at::Tensor result = at::empty({rows, length}, at::kLong);
  std::copy(values.begin(), values.end(), result.data_ptr<std::int64_t>());
  return result;
}

// First column of the document that each token of rows [begin, begin + rows) belongs to; undefined where every row is
// one document.
at::Tensor document_rows(const text::Batch& batch, std::int64_t begin, std::int64_t rows) {
  const auto offset = [&](std::int64_t row) { return batch.document_offsets[static_cast<std::size_t>(begin + row)]; };
  if (offset(rows) - offset(0) == rows) return {};
  at::Tensor starts = at::empty({rows, batch.length}, at::kInt);
  auto* out = starts.data_ptr<std::int32_t>();
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto first = static_cast<std::size_t>(offset(r));
    const auto last = static_cast<std::size_t>(offset(r + 1));
    for (std::size_t i = first; i < last; ++i) {
      const std::int64_t end = i + 1 < last ? batch.document_starts[i + 1] : batch.length;
      std::fill(out + r * batch.length + batch.document_starts[i], out + r * batch.length + end,
                batch.document_starts[i]);
    }
  }
  return starts;
}

std::optional<std::int32_t> mask_token(const text::Tokenizer& tokenizer) {
  for (const char* name : {"[MASK]", "<mask>"}) {
    if (const auto id = tokenizer.id_of(name)) return id;
  }
  return std::nullopt;
}

}  // namespace

struct TrainData::State {
  State(const TrainOptions& train_options, const text::Tokenizer& tokenizer, const spec::ModelConfig& model_config,
        const std::filesystem::path& cache)
      : options(train_options),
        config(model_config),
        dataset_options(make_options(train_options)),
        dataset(build(tokenizer, cache)),
        mask_id(mask_token(tokenizer)) {
    GANTRY_CHECK(config.is_decoder() || mask_id, "this tokeniser has no [MASK] or <mask> token to train {} with",
                 config.model_type);
    reader.emplace(dataset, dataset_options, text::ReaderOptions{.batch_rows = sequences_per_step(options)});
  }

  static text::DatasetOptions make_options(const TrainOptions& o) {
    text::DatasetOptions result;
    result.sequence_length = o.sequence_length;
    result.seed = o.seed;
    result.validation_fraction = o.validation_fraction;
    result.text_field = o.text_field;
    return result;
  }

  text::TokenDataset build(const text::Tokenizer& tokenizer, const std::filesystem::path& cache) {
    std::optional<base::Progress> progress;
    return text::TokenDataset::build(options.data, tokenizer, cache, dataset_options,
                                     [&](std::uint64_t done, std::uint64_t total) {
                                       if (!progress) progress.emplace("tokenising", total, "bytes");
                                       progress->update(done);
                                     });
  }

  // Tokens are masked before the split, so that a micro-batch's size doesn't change what is learnt.
  std::vector<TrainBatch> convert(const text::Batch& batch, std::uint64_t draw, std::int64_t micro_batch) const {
    at::Tensor ids = to_tensor(batch.input_ids, batch.rows, batch.length), labels, positions;
    if (options.mask_documents) positions = to_tensor(batch.position_ids, batch.rows, batch.length);
    if (config.is_decoder()) {
      labels = to_tensor(batch.labels, batch.rows, batch.length);
    } else {
      mask_tokens(ids, labels, *mask_id, config.vocab_size, options.seed, draw);
    }
    std::vector<TrainBatch> result;
    std::int64_t begin = 0;
    for (const std::int64_t rows : split_step(batch.rows, micro_batch)) {
      TrainBatch part;
      part.tokens = rows * batch.length;
      part.inputs.ids = ids.narrow(0, begin, rows);
      if (options.mask_documents) {
        part.inputs.positions = positions.narrow(0, begin, rows);
        part.inputs.row_starts = document_rows(batch, begin, rows);
      }
      part.labels = labels.narrow(0, begin, rows);
      part.counted = part.labels.ge(0).sum().item<std::int64_t>();
      result.push_back(std::move(part));
      begin += rows;
    }
    return result;
  }

  static std::uint64_t draw_of(const text::DataPosition& position) {
    return base::mix64(position.epoch) ^ position.sample;
  }

  TrainOptions options;
  spec::ModelConfig config;
  text::DatasetOptions dataset_options;
  text::TokenDataset dataset;
  std::optional<std::int32_t> mask_id;
  std::optional<text::BatchReader> reader;
};

TrainData::TrainData(const TrainOptions& options, const text::Tokenizer& tokenizer, const spec::ModelConfig& config,
                     const std::filesystem::path& cache)
    : state_(std::make_unique<State>(options, tokenizer, config, cache)) {}

TrainData::~TrainData() = default;

std::vector<TrainBatch> TrainData::next(std::int64_t micro_batch) {
  const std::uint64_t draw = State::draw_of(state_->reader->position());
  return state_->convert(state_->reader->next(), draw, micro_batch);
}

TrainBatch TrainData::peek(std::int64_t sequences) const {
  const text::DataPosition position = state_->reader->position();
  text::BatchReader reader(state_->dataset, state_->dataset_options, {.batch_rows = sequences}, position);
  return state_->convert(reader.next(), State::draw_of(position), sequences).front();
}

base::OrderedJson TrainData::position() const { return text::position_to_json(state_->reader->position()); }

void TrainData::seek(const base::Json& position) {
  state_->reader.emplace(state_->dataset, state_->dataset_options,
                         text::ReaderOptions{.batch_rows = sequences_per_step(state_->options)},
                         text::position_from_json(position, "checkpoint"));
}

std::vector<TrainBatch> TrainData::validation(std::int64_t count, std::int64_t micro_batch) const {
  std::vector<TrainBatch> result;
  if (state_->options.validation_fraction == 0) return result;
  text::DatasetOptions options = state_->dataset_options;
  options.shuffle = false;
  const base::AutoCount& batch = state_->options.batch;
  const std::int64_t rows = batch.is_auto() ? sequences_per_step(state_->options) : batch.count();
  text::BatchReader reader(state_->dataset, options,
                           {.batch_rows = rows, .split = text::Split::kValidation, .epochs = 1});
  for (std::int64_t i = 0; i < count; ++i) {
    const text::Batch held_out = reader.next();
    if (held_out.empty()) break;
    std::ranges::move(state_->convert(held_out, static_cast<std::uint64_t>(i), micro_batch),
                      std::back_inserter(result));
  }
  return result;
}

std::string TrainData::description() const {
  const auto& d = state_->dataset;
  const auto held_out =
      state_->options.validation_fraction > 0 ? d.range(text::Split::kValidation, state_->dataset_options).tokens() : 0;
  return fmt::format("data: {} tokens in {} documents, {} held out; an epoch is {} steps{}", d.token_count(),
                     d.document_count(), held_out, state_->reader->steps_per_epoch(),
                     d.from_cache() ? " (tokens from an earlier run)" : "");
}

void mask_tokens(at::Tensor& ids, at::Tensor& labels, std::int32_t mask_id, std::int64_t vocab_size, std::uint64_t seed,
                 std::uint64_t draw) {
  labels = at::full_like(ids, -100);
  auto* id = ids.data_ptr<std::int64_t>();
  auto* label = labels.data_ptr<std::int64_t>();
  base::CounterRandom random(base::mix64(seed) ^ draw);
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    const double choice = random.uniform();
    const double kind = random.uniform();
    const auto replacement = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(vocab_size)));
    if (choice >= 0.15) continue;
    label[i] = id[i];
    if (kind < 0.8) {
      id[i] = mask_id;
    } else if (kind < 0.9) {
      id[i] = replacement;
    }
  }
}

}  // namespace gantry::train
