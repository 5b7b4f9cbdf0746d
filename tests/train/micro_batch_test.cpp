// The search with made-up measurements.
#include "gantry/train/micro_batch.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "tests/test_support.h"

namespace gantry::train {
namespace {

using layers::MemoryMode;

constexpr std::int64_t kAll = 1 << 20;  // every size fits

// A machine on which a size fits up to a limit and a step lasts as long as a table or a function says.
class Machine {
 public:
  std::int64_t most = kAll;
  std::function<double(std::int64_t)> step_seconds = [](std::int64_t) { return 1.0; };
  std::int64_t runs_out_at = 0;  ///< memory runs out when this size is timed

  MicroBatchPlan search(std::int64_t sequences) {
    return search_micro_batch(sequences,
                              {.fit = [this](std::int64_t size) { return fit(size); },
                               .step_seconds = [this](const MicroBatchTrial& trial) { return seconds(trial); }});
  }

  std::vector<std::int64_t> fitted;   // in the order of questions
  std::map<std::int64_t, int> timed;  // times a size was timed

 private:
  MemoryPlan fit(std::int64_t size) {
    fitted.push_back(size);
    const auto mode = size <= 4 ? MemoryMode::kRecompute : MemoryMode::kRerun;
    MemoryPlan plan;
    plan.layers = {{mode, mode, MemoryMode::kInPlace}};
    plan.hull = {{plan.layers[0], size * 100, 1.0}};
    plan.used = {1};
    plan.least_bytes = static_cast<std::uint64_t>(size) << 19;
    plan.fits = size <= most;
    if (plan.fits) plan.peak_bytes = static_cast<std::uint64_t>(size) << 20;
    return plan;
  }

  std::optional<double> seconds(const MicroBatchTrial& trial) {
    ++timed[trial.micro_batch];
    if (trial.micro_batch == runs_out_at) return std::nullopt;
    return step_seconds(trial.micro_batch);
  }
};

std::vector<std::int64_t> sizes_of(const MicroBatchPlan& plan) {
  std::vector<std::int64_t> sizes;
  for (const MicroBatchTrial& trial : plan.trials) sizes.push_back(trial.micro_batch);
  return sizes;
}

TEST(SplitStep, SharesSequencesEquallyAmongTheFewestMicroBatches) {
  using Sizes = std::vector<std::int64_t>;
  EXPECT_EQ(split_step(8, 4), (Sizes{4, 4}));
  EXPECT_EQ(split_step(8, 3), (Sizes{3, 3, 2}));
  EXPECT_EQ(split_step(8, 5), (Sizes{4, 4}));
  EXPECT_EQ(split_step(7, 2), (Sizes{2, 2, 2, 1}));
  EXPECT_EQ(split_step(3, 9), (Sizes{3}));
  for (std::int64_t sequences = 1; sequences < 40; ++sequences) {
    for (std::int64_t most = 1; most <= sequences; ++most) {
      const Sizes parts = split_step(sequences, most);
      EXPECT_EQ(std::accumulate(parts.begin(), parts.end(), std::int64_t{0}), sequences);
      EXPECT_LE(parts.front(), most);
      EXPECT_LE(parts.front() - parts.back(), 1) << fmt::format("{} by {}: {}", sequences, most, parts);
    }
  }
  EXPECT_MENTIONS(tests::input_error([] { split_step(4, 0); }), "micro-batches of 0");
}

TEST(MicroBatchSizes, AreTheLargestPartsOfEverySplit) {
  EXPECT_EQ(micro_batch_sizes(1), (std::vector<std::int64_t>{1}));
  EXPECT_EQ(micro_batch_sizes(7), (std::vector<std::int64_t>{1, 2, 3, 4, 7}));
  EXPECT_EQ(micro_batch_sizes(8), (std::vector<std::int64_t>{1, 2, 3, 4, 8}));
}

TEST(SearchMicroBatch, TakesTheHighestSpeedNotTheLargestSize) {
  Machine machine;
  machine.step_seconds = [](std::int64_t size) { return size == 2 ? 0.5 : 1.0; };
  const MicroBatchPlan plan = machine.search(16);
  ASSERT_TRUE(plan.chosen);
  EXPECT_EQ(plan.best().micro_batch, 2);
  EXPECT_EQ(plan.best().accumulation, 8);
  EXPECT_DOUBLE_EQ(plan.best().samples_per_s, 32);
}

TEST(SearchMicroBatch, FindsAPeakBetweenTheDoublings) {
  // Of the doublings 8 is the fastest; 11 lies between 8 and 16, and 10 between 8 and 11.
  const std::map<std::int64_t, double> seconds = {{1, 9},  {2, 7},    {4, 5},    {8, 3},    {10, 2.5}, {11, 2.8},
                                                  {13, 3}, {16, 3.1}, {22, 3.3}, {32, 3.2}, {64, 6}};
  Machine machine;
  machine.step_seconds = [&](std::int64_t size) { return seconds.contains(size) ? seconds.at(size) : 4.0; };
  const MicroBatchPlan plan = machine.search(64);
  EXPECT_EQ(plan.best().micro_batch, 10) << describe(plan);
  EXPECT_EQ(plan.best().accumulation, 7);
}

TEST(SearchMicroBatch, TimesThatRiseAndFallAgainDoNotStopIt) {
  Machine machine;
  machine.step_seconds = [](std::int64_t size) { return size == 32 ? 1.0 : size == 16 ? 5.0 : 2.0 + 0.1 * size; };
  EXPECT_EQ(machine.search(32).best().micro_batch, 32);
}

TEST(SearchMicroBatch, BisectsToTheLargestSizeThatFits) {
  for (const std::int64_t sequences : {16, 23, 64, 100}) {
    for (const std::int64_t size : micro_batch_sizes(sequences)) {
      Machine machine;
      machine.most = size;
      machine.step_seconds = [](std::int64_t tried) { return 1.0 / static_cast<double>(tried); };
      const MicroBatchPlan plan = machine.search(sequences);
      EXPECT_EQ(plan.best().micro_batch, size) << describe(plan);
      EXPECT_LE(machine.fitted.size(), 12u) << fmt::format("of {} sequences: {}", sequences, machine.fitted);
    }
  }
}

TEST(SearchMicroBatch, AsksForEachSizeOnceAndTimesOnlyWhatFits) {
  Machine machine;
  machine.most = 11;
  machine.search(64);
  std::vector<std::int64_t> once = machine.fitted;
  std::sort(once.begin(), once.end());
  EXPECT_EQ(std::unique(once.begin(), once.end()), once.end()) << fmt::format("{}", machine.fitted);
  for (const auto& [size, times] : machine.timed) EXPECT_LE(size, 11) << times;
}

TEST(SearchMicroBatch, OfEqualsItTakesTheSmallest) {
  Machine machine;
  EXPECT_EQ(machine.search(32).best().micro_batch, 1);
}

TEST(SearchMicroBatch, OneSizeOnly) {
  Machine machine;
  const MicroBatchPlan plan = machine.search(1);
  EXPECT_EQ(sizes_of(plan), (std::vector<std::int64_t>{1}));
  EXPECT_EQ(plan.best().accumulation, 1);
  machine.most = 1;
  EXPECT_EQ(machine.search(8).best().micro_batch, 1) << "the others have no room";
}

TEST(SearchMicroBatch, SaysThatNothingFits) {
  Machine machine;
  machine.most = 0;
  const MicroBatchPlan plan = machine.search(8);
  EXPECT_FALSE(plan.chosen);
  EXPECT_EQ(sizes_of(plan), (std::vector<std::int64_t>{1}));
  EXPECT_TRUE(machine.timed.empty());
}

TEST(SearchMicroBatch, MemoryThatRunsOutWhileTimingIsAnAnswer) {
  Machine machine;
  machine.runs_out_at = 8;
  machine.step_seconds = [](std::int64_t size) { return 1.0 / static_cast<double>(size); };
  const MicroBatchPlan plan = machine.search(8);
  EXPECT_EQ(plan.best().micro_batch, 4) << describe(plan);
  EXPECT_EQ(machine.timed[8], 1) << "not tried again";
  EXPECT_FALSE(plan.trials.back().memory.fits);
}

TEST(SearchMicroBatch, OneSlowRoundDoesNotDecide) {
  Machine machine;
  machine.step_seconds = [&](std::int64_t size) {
    if (size == 4) return machine.timed[4] == 2 ? 50.0 : 1.0;
    return 2.0;
  };
  EXPECT_EQ(machine.search(8).best().micro_batch, 4);
}

TEST(SearchMicroBatch, ErrorsOfAMeasurementPass) {
  Machine machine;
  machine.step_seconds = [](std::int64_t) -> double { throw base::Interrupted("stop"); };
  EXPECT_EQ(tests::message_of<base::Interrupted>([&] { machine.search(4); }), "stop");
}

TEST(MicroBatchPlan, IsDescribedAndRecordedWithModesAndReason) {
  Machine machine;
  machine.most = 3;
  machine.step_seconds = [](std::int64_t size) { return size == 2 ? 0.5 : 1.0; };
  const MicroBatchPlan plan = machine.search(8);
  const std::string text = describe(plan);
  EXPECT_MENTIONS(text, "2            4         2     16.000  chosen  1 x attention=recompute");
  EXPECT_MENTIONS(text, "4            2       > 2    no room");
  const auto json = micro_batches_to_json(plan);
  ASSERT_EQ(json.size(), 4u) << text;
  EXPECT_EQ(json[1].dump(),
            R"({"micro_batch":2,"accumulation":4,"fits":true,"peak_bytes":2097152,"samples_per_s":16.0,)"
            R"("modes":[{"attention":"recompute","mlp":"recompute","norm":"in-place","layers":1}],"chosen":true})");
  EXPECT_TRUE(json[3]["peak_bytes"].is_null() && json[3]["samples_per_s"].is_null()) << json[3].dump();
  EXPECT_FALSE(json[3]["fits"].get<bool>() || json[3]["chosen"].get<bool>());
}

}  // namespace
}  // namespace gantry::train
