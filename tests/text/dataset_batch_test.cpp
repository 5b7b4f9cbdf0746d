#include "gantry/text/dataset_batch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "tests/text/byte_tokenizer.h"
#include "tests/text/text_data.h"

namespace gantry::text {
namespace {

constexpr std::int32_t kNone = kIgnoredLabel;

class BatchTest : public ::testing::Test {
 protected:
  TokenDataset build(const std::string& jsonl) {
    return TokenDataset::build({folder_.write("x.jsonl", jsonl)}, *tokenizer_, folder_ / "cache", {});
  }
  /// Documents "0", "1", ... of growing length, 5 to 14 letters.
  TokenDataset many(int count) {
    std::string lines;
    for (int i = 0; i < count; ++i) {
      lines += "{\"text\": \"" + std::string(static_cast<std::size_t>(5 + i % 10), static_cast<char>('a' + i % 26)) +
               "\"}\n";
    }
    return build(lines);
  }

  TemporaryFolder folder_;
  std::unique_ptr<Tokenizer> tokenizer_ = byte_tokenizer();
};

using Ids = std::vector<std::int32_t>;

TEST_F(BatchTest, PackedRowsKnowTheirDocuments) {
  const TokenDataset dataset = build("{\"text\": \"abc\"}\n{\"text\": \"d\"}\n{\"text\": \"efgh\"}\n");
  // a b c E d E e f g h E
  const BatchReader reader(dataset, {.sequence_length = 5, .shuffle = false}, {});
  EXPECT_EQ(reader.samples_per_epoch(), 2u);
  const Batch first = reader.row(0);
  EXPECT_EQ(first.input_ids, (Ids{'a', 'b', 'c', kEos, 'd'}));
  EXPECT_EQ(first.labels, (Ids{'b', 'c', kEos, kNone, kEos}));
  EXPECT_EQ(first.position_ids, (Ids{0, 1, 2, 3, 0}));
  EXPECT_EQ(first.document_starts, (Ids{0, 4}));
  EXPECT_EQ(first.document_offsets, (Ids{0, 2}));
  EXPECT_EQ(first.label_count, 4);
  const Batch second = reader.row(1);
  EXPECT_EQ(second.input_ids, (Ids{kEos, 'e', 'f', 'g', 'h'}));
  EXPECT_EQ(second.labels, (Ids{kNone, 'f', 'g', 'h', kEos}));
  EXPECT_EQ(second.position_ids, (Ids{0, 0, 1, 2, 3}));
  EXPECT_EQ(second.document_starts, (Ids{0, 1}));
}

TEST_F(BatchTest, TheLabelBehindARowIsIgnoredWhereADocumentStartsThere) {
  const TokenDataset dataset = build("{\"text\": \"abc\"}\n{\"text\": \"def\"}\n");
  const BatchReader reader(dataset, {.sequence_length = 4, .shuffle = false}, {});
  EXPECT_EQ(reader.row(0).labels, (Ids{'b', 'c', kEos, kNone}));
  EXPECT_EQ(reader.row(1).labels, (Ids{'e', 'f', kEos, kNone}));
  EXPECT_EQ(reader.row(1).document_starts, (Ids{0, 3})) << "the fourth column is padding";
}

TEST_F(BatchTest, ATextShorterThanARowIsPadded) {
  const TokenDataset dataset = build("{\"text\": \"ab\"}\n");
  BatchReader reader(dataset, {.sequence_length = 6}, {});
  const Batch batch = reader.next();
  EXPECT_EQ(batch.rows, 1);
  EXPECT_EQ(batch.input_ids, (Ids{'a', 'b', kEos, kEos, kEos, kEos})) << "padded with the end token, lacking another";
  EXPECT_EQ(batch.labels, (Ids{'b', kEos, kNone, kNone, kNone, kNone}));
  EXPECT_EQ(batch.document_starts, (Ids{0, 2}));
  EXPECT_EQ(batch.position_ids, (Ids{0, 1, 0, 1, 2, 3}));
  EXPECT_EQ(batch.label_count, 2);
}

TEST_F(BatchTest, UnpackedRowsHoldOneDocumentEach) {
  const TokenDataset dataset = build("{\"text\": \"abcdef\"}\n{\"text\": \"g\"}\n");
  const BatchReader reader(dataset, {.sequence_length = 4, .shuffle = false, .pack = false}, {});
  EXPECT_EQ(reader.samples_per_epoch(), 2u);
  EXPECT_EQ(reader.row(0).labels, (Ids{'b', 'c', 'd', 'e'})) << "cut";
  EXPECT_EQ(reader.row(1).input_ids, (Ids{'g', kEos, kEos, kEos}));
  EXPECT_EQ(reader.row(1).labels, (Ids{kEos, kNone, kNone, kNone})) << "padded";
}

TEST_F(BatchTest, OnlyTrainedTokensHaveLabels) {
  tokenizer_ = byte_tokenizer(
      "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
      "{% if add_generation_prompt %}<|assistant|>{% endif %}");
  const TokenDataset dataset = build(
      "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n");
  const BatchReader reader(dataset, {.sequence_length = 5}, {});
  EXPECT_EQ(reader.row(0).input_ids, (Ids{258, 'a', 260, 259, 'b'}));
  EXPECT_EQ(reader.row(0).labels, (Ids{kNone, kNone, kNone, 'b', 260}));
}

TEST_F(BatchTest, AnEpochHandsOutEveryTokenOnceInAnOrderOfItsOwn) {
  const TokenDataset dataset = many(100);
  const DatasetOptions options{.sequence_length = 16, .seed = 3};
  BatchReader reader(dataset, options, {.batch_rows = 4, .epochs = 2});
  std::vector<Ids> rows[2];
  for (Batch batch = reader.next(); !batch.empty(); batch = reader.next()) {
    for (std::int64_t r = 0; r < batch.rows; ++r) {
      const auto begin = batch.input_ids.begin() + r * 16;
      auto& epoch = rows[rows[0].size() == reader.samples_per_epoch() ? 1 : 0];
      epoch.emplace_back(begin, begin + 16);
    }
  }
  ASSERT_EQ(rows[1].size(), reader.samples_per_epoch());
  EXPECT_NE(rows[0], rows[1]);
  for (auto& epoch : rows) std::sort(epoch.begin(), epoch.end());
  EXPECT_EQ(rows[0], rows[1]);
  std::vector<Ids> plain;
  for (std::uint64_t i = 0; i < reader.samples_per_epoch(); ++i) plain.push_back(reader.row(i).input_ids);
  std::sort(plain.begin(), plain.end());
  EXPECT_EQ(rows[0], plain);
}

TEST_F(BatchTest, SeedsGiveDifferentOrdersAndTheSameSeedTheSame) {
  const TokenDataset dataset = many(100);
  const auto first = [&](std::uint64_t seed) {
    return BatchReader(dataset, {.sequence_length = 16, .seed = seed}, {.batch_rows = 8}).next().input_ids;
  };
  EXPECT_EQ(first(1), first(1));
  EXPECT_NE(first(1), first(2));
}

TEST_F(BatchTest, AReaderAtASavedPositionGoesOnIdentically) {
  const TokenDataset dataset = many(60);
  const DatasetOptions options{.sequence_length = 8, .seed = 9, .validation_fraction = 0.1};
  const ReaderOptions reader{.batch_rows = 3};
  BatchReader whole(dataset, options, reader);
  std::vector<Batch> batches;
  std::vector<std::string> positions;
  for (int i = 0; i < 60; ++i) {  // several epochs
    positions.push_back(position_to_json(whole.position()).dump());
    batches.push_back(whole.next());
  }
  EXPECT_GT(whole.position().epoch, 1u);
  for (std::size_t i = 0; i < positions.size(); ++i) {
    BatchReader resumed(dataset, options, reader, position_from_json(base::Json::parse(positions[i]), "checkpoint"));
    const Batch batch = resumed.next();
    ASSERT_EQ(batch.input_ids, batches[i].input_ids) << i;
    ASSERT_EQ(batch.labels, batches[i].labels);
    ASSERT_EQ(batch.position_ids, batches[i].position_ids);
    ASSERT_EQ(batch.document_starts, batches[i].document_starts);
    ASSERT_EQ(batch.document_offsets, batches[i].document_offsets);
  }
}

TEST_F(BatchTest, RanksShareEachStepWithoutOverlap) {
  const TokenDataset dataset = many(97);
  const DatasetOptions options{.sequence_length = 8};
  BatchReader whole(dataset, options, {.batch_rows = 6});
  std::vector<BatchReader> ranks;
  for (std::int64_t rank = 0; rank < 3; ++rank) {
    ranks.emplace_back(dataset, options, ReaderOptions{.batch_rows = 2, .rank = rank, .world = 3});
  }
  for (int step = 0; step < 50; ++step) {
    Ids joined;
    for (BatchReader& rank : ranks) {
      const Batch part = rank.next();
      joined.insert(joined.end(), part.input_ids.begin(), part.input_ids.end());
      EXPECT_EQ(rank.position(), ranks[0].position());
    }
    ASSERT_EQ(joined, whole.next().input_ids) << step;
  }
  EXPECT_EQ(ranks[0].position(), whole.position()) << "a position fits any number of ranks";
}

TEST_F(BatchTest, RanksEndAnEpochTogether) {
  const TokenDataset dataset = many(20);
  std::int64_t rows = 0;
  BatchReader probe(dataset, {.sequence_length = 8}, {});
  for (std::int64_t rank = 0; rank < 4; ++rank) {
    BatchReader reader(dataset, {.sequence_length = 8}, {.batch_rows = 2, .rank = rank, .world = 4, .epochs = 1});
    for (std::uint64_t step = 0; step < reader.steps_per_epoch(); ++step) rows += reader.next().rows;
    EXPECT_TRUE(reader.next().empty());
    EXPECT_EQ(reader.position().epoch, 1u);
  }
  EXPECT_EQ(rows, static_cast<std::int64_t>(probe.samples_per_epoch()));
}

TEST_F(BatchTest, MoreRowsThanAnEpochHasWrapAround) {
  const TokenDataset dataset = build("{\"text\": \"abcdefghijk\"}\n");
  BatchReader reader(dataset, {.sequence_length = 4}, {.batch_rows = 10});
  ASSERT_EQ(reader.samples_per_epoch(), 3u);
  const Batch batch = reader.next();
  EXPECT_EQ(batch.rows, 10);
  EXPECT_EQ(reader.position().epoch, 3u);
  EXPECT_EQ(reader.position().sample, 1u);
}

TEST_F(BatchTest, TrainingAndValidationDoNotShareTokens) {
  const TokenDataset dataset = many(100);
  const DatasetOptions options{.sequence_length = 16, .validation_fraction = 0.2};
  std::map<Split, std::uint64_t> labels;
  for (const Split split : {Split::kTrain, Split::kValidation}) {
    BatchReader reader(dataset, options, {.split = split, .epochs = 1});
    for (Batch batch = reader.next(); !batch.empty(); batch = reader.next()) {
      labels[split] += static_cast<std::uint64_t>(batch.label_count);
    }
  }
  // Every token but the first of each document is a label once.
  EXPECT_EQ(labels[Split::kTrain] + labels[Split::kValidation], dataset.token_count() - dataset.document_count());
  EXPECT_NEAR(static_cast<double>(labels[Split::kValidation]) / static_cast<double>(dataset.token_count()), 0.18, 0.03);
}

TEST_F(BatchTest, APositionOfOtherDataIsRefused) {
  const TokenDataset dataset = many(10);
  const DataPosition position = BatchReader(dataset, {.sequence_length = 8}, {}).position();
  const auto message = [&](const DatasetOptions& options, const DataPosition& where) {
    return message_of([&] { BatchReader(dataset, options, {}, where); });
  };
  EXPECT_EQ(message({.sequence_length = 8}, position), "");
  EXPECT_NE(message({.sequence_length = 9}, position).find("belongs to other data or another order"),
            std::string::npos);
  EXPECT_NE(message({.sequence_length = 8, .seed = 1}, position), "");
  EXPECT_NE(message({.sequence_length = 8, .pack = false}, position), "");
  EXPECT_NE(message({.sequence_length = 8}, {.sample = 999999}).find("is row 999999 of an epoch with"),
            std::string::npos);
  EXPECT_EQ(message_of([] { position_from_json(base::Json::parse(R"({"epoch": 1})"), "state.json"); }),
            "state.json: 'sample' is missing");
}

TEST_F(BatchTest, RanksAndRowsThatMakeNoSenseAreRefused) {
  const TokenDataset dataset = many(10);
  const auto message = [&](const ReaderOptions& reader) {
    return message_of([&] { BatchReader(dataset, {}, reader); });
  };
  EXPECT_NE(message({.batch_rows = 0}).find("a batch must have 1 to"), std::string::npos);
  EXPECT_EQ(message({.rank = 2, .world = 2}), "rank 2 of 2 data-parallel ranks makes no sense");
  const TokenDataset tiny =
      TokenDataset::build({folder_.write("t.txt", "a")}, *tokenizer_, folder_ / "cache", {.add_eos = false});
  EXPECT_EQ(message_of([&] { BatchReader(tiny, {}, {}); }),
            "the 1 tokens of this split are too few: a row needs at least 2; give more text");
}

}  // namespace
}  // namespace gantry::text
