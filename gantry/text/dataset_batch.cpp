#include "gantry/text/dataset_batch.h"

#include <algorithm>

#include "gantry/base/random.h"
#include "gantry/text/dataset_hash.h"

namespace gantry::text {
namespace {

std::uint64_t order_key(std::uint64_t seed, std::uint64_t epoch) { return base::mix64(seed) ^ base::mix64(~epoch); }

std::uint64_t fingerprint(const TokenDataset& dataset, const DatasetOptions& options, Split split) {
  DataHash hash;
  hash.add(dataset.identity());
  hash.add(static_cast<std::uint64_t>(options.sequence_length));
  hash.add(options.shuffle ? options.seed + 1 : 0);
  hash.add((options.shuffle ? 1u : 0u) | (options.pack ? 2u : 0u) | (split == Split::kTrain ? 4u : 0u));
  hash.add_field(fmt::format("{}", options.validation_fraction));
  return std::max<std::uint64_t>(hash.value() >> 1, 1);  // 63 bits: any JSON reader holds them
}

std::uint64_t count_samples(const TokenRange& range, const DatasetOptions& options) {
  GANTRY_CHECK(range.tokens() >= 2, "the {} tokens of this split are too few: a row needs at least 2; give more text",
               range.tokens());
  if (!options.pack) return range.end_document - range.begin_document;
  const auto length = static_cast<std::uint64_t>(options.sequence_length);
  return (range.tokens() - 1 + length - 1) / length;
}

}  // namespace

base::OrderedJson position_to_json(const DataPosition& position) {
  return {{"epoch", position.epoch}, {"sample", position.sample}, {"fingerprint", position.fingerprint}};
}

DataPosition position_from_json(const base::Json& json, std::string_view source) {
  DataPosition position;
  position.epoch = base::json_get<std::uint64_t>(json, "epoch", source);
  position.sample = base::json_get<std::uint64_t>(json, "sample", source);
  position.fingerprint = base::json_get_or<std::uint64_t>(json, "fingerprint", 0, source);
  return position;
}

BatchReader::BatchReader(const TokenDataset& dataset, const DatasetOptions& options, const ReaderOptions& reader,
                         const DataPosition& position)
    : dataset_(dataset),
      options_(options),
      reader_(reader),
      position_(position),
      range_(dataset.range(reader.split, options)),
      samples_(count_samples(range_, options)),
      order_(samples_, order_key(options.seed, position.epoch)),
      order_epoch_(position.epoch) {
  constexpr std::int64_t kMaxRows = 1 << 20;
  GANTRY_CHECK(reader.batch_rows >= 1 && reader.batch_rows <= kMaxRows, "a batch must have 1 to {} rows, found {}",
               kMaxRows, reader.batch_rows);
  GANTRY_CHECK(reader.world >= 1 && reader.world <= kMaxRows && reader.rank >= 0 && reader.rank < reader.world,
               "rank {} of {} data-parallel ranks makes no sense", reader.rank, reader.world);
  const std::uint64_t own = fingerprint(dataset, options, reader.split);
  GANTRY_CHECK(
      position.fingerprint == 0 || position.fingerprint == own,
      "the saved data position belongs to other data or another order: files, tokeniser, sequence_length, seed, "
      "shuffle, pack or validation_fraction changed; restore them, or start the data from the beginning");
  GANTRY_CHECK(position.sample <= samples_, "the saved data position is row {} of an epoch with {}", position.sample,
               samples_);
  position_.fingerprint = own;
}

std::uint64_t BatchReader::steps_per_epoch() const {
  const auto step = static_cast<std::uint64_t>(reader_.batch_rows * reader_.world);
  return (samples_ + step - 1) / step;
}

BatchReader::Span BatchReader::span_of(std::uint64_t sample) const {
  const auto length = static_cast<std::uint64_t>(options_.sequence_length);
  Span span;
  std::uint64_t end = range_.end_token;
  if (options_.pack) {
    span.begin = range_.begin_token + sample * length;
  } else {
    const std::uint64_t document = range_.begin_document + sample;
    span.begin = std::max(range_.begin_token, dataset_.document_start(document));
    end = std::min(end, dataset_.document_start(document + 1));
  }
  span.inputs = std::min(length, end - span.begin - 1);
  return span;
}

void BatchReader::append_documents(Batch& batch, const Span& span) const {
  const auto first = static_cast<std::size_t>(batch.document_starts.size());
  batch.document_starts.push_back(0);
  if (span.inputs != 0) {
    for (std::uint64_t document = dataset_.document_of(span.begin) + 1; document < dataset_.document_count();
         ++document) {
      const std::uint64_t start = dataset_.document_start(document);
      if (start >= span.begin + span.inputs) break;
      batch.document_starts.push_back(static_cast<std::int32_t>(start - span.begin));
    }
    if (span.inputs < static_cast<std::uint64_t>(batch.length)) {
      batch.document_starts.push_back(static_cast<std::int32_t>(span.inputs));
    }
  }
  batch.document_offsets.push_back(static_cast<std::int32_t>(batch.document_starts.size()));
  for (std::size_t i = first; i < batch.document_starts.size(); ++i) {
    const std::int32_t end =
        i + 1 < batch.document_starts.size() ? batch.document_starts[i + 1] : static_cast<std::int32_t>(batch.length);
    for (std::int32_t column = batch.document_starts[i]; column < end; ++column) {
      batch.position_ids.push_back(column - batch.document_starts[i]);
    }
  }
}

void BatchReader::append_row(Batch& batch, std::uint64_t sample) const {
  const Span span = span_of(sample);
  const auto inputs = static_cast<std::size_t>(span.inputs);
  std::vector<std::int32_t> tokens(inputs + 1);
  dataset_.copy_tokens(span.begin, tokens);
  const std::size_t row_begin = batch.labels.size();
  batch.input_ids.insert(batch.input_ids.end(), tokens.begin(), tokens.end() - 1);
  batch.labels.insert(batch.labels.end(), tokens.begin() + 1, tokens.end());
  batch.input_ids.resize(row_begin + static_cast<std::size_t>(batch.length), dataset_.pad_id());
  batch.labels.resize(row_begin + static_cast<std::size_t>(batch.length), kIgnoredLabel);
  const auto first_document = static_cast<std::size_t>(batch.document_starts.size());
  append_documents(batch, span);
  // The first token of a document is not to be guessed from the document before.
  for (std::size_t i = first_document + 1; i < batch.document_starts.size(); ++i) {
    const auto start = static_cast<std::size_t>(batch.document_starts[i]);
    if (start < inputs) batch.labels[row_begin + start - 1] = kIgnoredLabel;
  }
  if (inputs != 0) {
    const std::uint64_t next = span.begin + span.inputs;
    if (dataset_.document_start(dataset_.document_of(next)) == next)
      batch.labels[row_begin + inputs - 1] = kIgnoredLabel;
  }
  for (std::size_t t = 0; t < inputs; ++t) {
    std::int32_t& label = batch.labels[row_begin + t];
    if (dataset_.masked() && !dataset_.trained(span.begin + t + 1)) label = kIgnoredLabel;
    batch.label_count += label != kIgnoredLabel ? 1 : 0;
  }
  ++batch.rows;
}

std::uint64_t BatchReader::shuffled(std::uint64_t epoch, std::uint64_t sample) {
  if (!options_.shuffle) return sample;
  if (epoch != order_epoch_) {
    order_ = Permutation(samples_, order_key(options_.seed, epoch));
    order_epoch_ = epoch;
  }
  return order_(sample);
}

Batch BatchReader::empty_batch() const {
  Batch batch;
  batch.length = options_.sequence_length;
  batch.document_offsets.push_back(0);
  return batch;
}

Batch BatchReader::row(std::uint64_t sample) const {
  GANTRY_CHECK(sample < samples_, "row {} of {}", sample, samples_);
  Batch batch = empty_batch();
  append_row(batch, sample);
  return batch;
}

Batch BatchReader::next() {
  Batch batch = empty_batch();
  const auto rows = static_cast<std::uint64_t>(reader_.batch_rows);
  const std::uint64_t first = position_.sample + rows * static_cast<std::uint64_t>(reader_.rank);
  for (std::uint64_t at = first; at < first + rows; ++at) {
    const std::uint64_t epoch = position_.epoch + at / samples_;
    if (reader_.epochs != 0 && epoch >= reader_.epochs) break;
    append_row(batch, shuffled(epoch, at % samples_));
  }
  const std::uint64_t step = rows * static_cast<std::uint64_t>(reader_.world);
  position_.epoch += (position_.sample + step) / samples_;
  position_.sample = (position_.sample + step) % samples_;
  if (reader_.epochs != 0 && position_.epoch >= reader_.epochs) {
    position_.epoch = reader_.epochs;
    position_.sample = 0;
  }
  return batch;
}

}  // namespace gantry::text
