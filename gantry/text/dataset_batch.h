#pragma once
// Batches out of a token data set, by a position that can be saved and returned to.
#include <cstdint>
#include <string>
#include <vector>

#include "gantry/base/json.h"
#include "gantry/text/dataset.h"
#include "gantry/text/dataset_order.h"

namespace gantry::text {

/// Label of a position that does not count in the loss.
constexpr std::int32_t kIgnoredLabel = -100;

/// Rows of equal length, row after row. Padding, at the end of a row, is a document of its own.
struct Batch {
  std::int64_t rows = 0;
  std::int64_t length = 0;
  std::vector<std::int32_t> input_ids;
  /// The token that follows each position, or kIgnoredLabel: at the end of a document, in padding, and for tokens that
  /// do not count (what others than the assistant say). Aligned with input_ids: no further shift is needed.
  std::vector<std::int32_t> labels;
  /// 0, 1, 2, ... from the start of each document (or of the row, where a document goes on).
  std::vector<std::int32_t> position_ids;
  /// Columns at which documents start in row r: document_starts[document_offsets[r] .. document_offsets[r + 1]), the
  /// first of them 0. Attention that stays within documents needs nothing else.
  std::vector<std::int32_t> document_starts;
  std::vector<std::int32_t> document_offsets;  // rows + 1
  /// Positions with a label.
  std::int64_t label_count = 0;

  bool empty() const { return rows == 0; }
};

/// Where a reader stands: the next row to hand out, counted over all ranks.
struct DataPosition {
  std::uint64_t epoch = 0;
  std::uint64_t sample = 0;
  /// Identity of data and order; 0 where unknown. A reader refuses a position of other data.
  std::uint64_t fingerprint = 0;

  bool operator==(const DataPosition&) const = default;
};
base::OrderedJson position_to_json(const DataPosition& position);
/// Throws InputError naming `source` and the field.
DataPosition position_from_json(const base::Json& json, std::string_view source);

struct ReaderOptions {
  std::int64_t batch_rows = 1;  // of this rank
  std::int64_t rank = 0;
  std::int64_t world = 1;  // data-parallel ranks
  Split split = Split::kTrain;
  /// 0: goes on for ever, and a batch may straddle two epochs. Otherwise the last batch may have fewer rows, and empty
  /// ones follow.
  std::uint64_t epochs = 0;
};

/// Hands out the rows of an epoch in a shuffled order (or in that of the files), the ranks taking turns: of each step's
/// batch_rows x world rows, rank r gets the r-th batch_rows. What it hands out depends only on data set, options and
/// position, so that a reader made at a saved position goes on with identical batches, also with another number of
/// ranks or rows. Keeps a reference to the data set.
class BatchReader {
 public:
  /// Throws InputError when the split holds fewer than two tokens, when rank or rows make no sense, and when `position`
  /// belongs to other data or another order.
  BatchReader(const TokenDataset& dataset, const DatasetOptions& options, const ReaderOptions& reader,
              const DataPosition& position = {});

  Batch next();
  /// Where next() will go on.
  DataPosition position() const { return position_; }
  /// Rows in an epoch, over all ranks.
  std::uint64_t samples_per_epoch() const { return samples_; }
  /// Steps that an epoch takes, rounded up.
  std::uint64_t steps_per_epoch() const;
  /// Row `sample` of the unshuffled order, for inspection.
  Batch row(std::uint64_t sample) const;

 private:
  struct Span {
    std::uint64_t begin = 0;  // token
    std::uint64_t inputs = 0;
  };
  Span span_of(std::uint64_t sample) const;
  void append_row(Batch& batch, std::uint64_t sample) const;
  void append_documents(Batch& batch, const Span& span) const;
  std::uint64_t shuffled(std::uint64_t epoch, std::uint64_t sample);
  Batch empty_batch() const;

  const TokenDataset& dataset_;
  DatasetOptions options_;
  ReaderOptions reader_;
  DataPosition position_;
  TokenRange range_;
  std::uint64_t samples_ = 0;
  Permutation order_;
  std::uint64_t order_epoch_ = 0;
};

}  // namespace gantry::text
