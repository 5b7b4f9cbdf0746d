#include "gantry/cli/report/records.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <string>

#include "gantry/cli/report/summary.h"
#include "tests/test_support.h"

namespace gantry::cli::report {
namespace {

std::string step(int number, const std::string& loss, const std::string& more = "") {
  return R"({"event":"step","step":)" + std::to_string(number) + R"(,"loss":)" + loss + more + "}\n";
}

std::string eval(int number, double loss) {
  return R"({"event":"eval","step":)" + std::to_string(number) + R"(,"split":"validation","loss":)" +
         std::to_string(loss) + "}\n";
}

const std::string kStart = R"({"event":"start","model":"m"})"
                           "\n";

using tests::input_error;

std::string parse_message(const std::string& text) {
  return input_error([&] { parse_records(text, "m.jsonl"); });
}

TEST(Records, ReadsEveryFieldOfAStep) {
  const auto run = parse_records(
      R"({"event":"step","step":12,"loss":2.31,"learning_rate":1e-4,"grad_norm":1.2,"tokens":1024,"tokens_per_s":900.5,)"
      R"("step_s":1.1,"memory_bytes":123,"time_s":33.2})",
      "m");
  ASSERT_EQ(run.steps.size(), 1U);
  const auto& record = run.steps[0];
  EXPECT_EQ(record.step, 12);
  EXPECT_EQ(record.loss, 2.31);
  EXPECT_EQ(record.learning_rate, 1e-4);
  EXPECT_EQ(record.grad_norm, 1.2);
  EXPECT_EQ(record.tokens, 1024);
  EXPECT_EQ(record.tokens_per_s, 900.5);
  EXPECT_EQ(record.step_s, 1.1);
  EXPECT_EQ(record.memory_bytes, 123);
  EXPECT_EQ(run.duration_s, 33.2);
  EXPECT_FALSE(record.diverged);
}

TEST(Records, TakesNullAndNamedNumbersForLossesThatAreNotFinite) {
  const auto run = parse_records(
      step(1, "null") + step(2, "\"NaN\"") + step(3, "\"Infinity\"") + step(4, "\"-Infinity\"") + step(5, "2"), "m");
  ASSERT_EQ(run.steps.size(), 5U);
  for (int index = 0; index < 4; ++index) EXPECT_TRUE(run.steps[index].diverged) << index;
  EXPECT_FALSE(run.steps[4].diverged);
  EXPECT_EQ(run.notices.at(0), "4 steps have a loss that is not a finite number, first at step 1.");
}

TEST(Records, SkipsUnknownEventsAndBlankLines) {
  const auto run = parse_records("\n" + kStart +
                                     R"({"event":"weather","step":"sunny"})"
                                     "\n \n" +
                                     step(1, "2"),
                                 "m");
  EXPECT_EQ(run.steps.size(), 1U);
}

TEST(Records, AResumedRunReplacesWhatItRepeats) {
  const auto run = parse_records(kStart + eval(0, 9) + step(1, "5", R"(,"time_s":10)") + eval(1, 8) +
                                     step(2, "4", R"(,"time_s":20)") + eval(2, 7) + step(3, "3", R"(,"time_s":30)") +
                                     kStart + step(2, "4.5", R"(,"time_s":5)") + R"({"event":"end","step":2})",
                                 "m");
  ASSERT_EQ(run.steps.size(), 2U);
  EXPECT_EQ(run.steps[1].loss, 4.5);
  ASSERT_EQ(run.evals.size(), 2U);
  EXPECT_EQ(run.evals.back().step, 1);
  EXPECT_EQ(run.resumed_at, std::vector<std::int64_t>{2});
  EXPECT_EQ(run.duration_s, 35);
  EXPECT_EQ(run.end_reason, "done");
}

TEST(Records, KnowsAResumeRecordAndThePeakMemoryOfTheEnd) {
  const auto run = parse_records(kStart + step(1, "5", R"(,"memory_bytes":10)") +
                                     R"({"event":"resume","model":"n"})"
                                     "\n" +
                                     step(2, "4", R"(,"memory_bytes":20)") +
                                     R"({"event":"end","step":2,"reason":"interrupted","peak_memory_bytes":50})",
                                 "m");
  EXPECT_EQ(run.resumed_at, std::vector<std::int64_t>{2});
  EXPECT_EQ(run.start["model"], "n");
  EXPECT_EQ(run.end_reason, "interrupted");
  EXPECT_EQ(summarise(run).peak_memory_bytes, 50);
}

TEST(Records, SkipsAnIncompleteLastLineAndSaysSo) {
  const auto run = parse_records(kStart + step(1, "2") + R"({"event":"st)", "m.jsonl");
  EXPECT_EQ(run.steps.size(), 1U);
  EXPECT_EQ(run.notices.at(0), "m.jsonl:3: the last line is incomplete, as after a kill, and was skipped.");
}

TEST(Records, SkipsAnIncompleteLineBeforeARestart) {
  const auto run = parse_records(kStart + step(1, "2") + "{\"event\":\"st\n" + kStart + step(2, "1"), "m.jsonl");
  EXPECT_EQ(run.steps.size(), 2U);
  EXPECT_EQ(run.notices.at(0), "m.jsonl:3: an incomplete line before a restart was skipped.");
}

TEST(Records, NamesTheMalformedLineInTheMiddle) {
  const auto message = parse_message(kStart + "{\"event\":\n" + step(1, "2"));
  EXPECT_EQ(message.find("m.jsonl:2: not valid JSON"), 0U) << message;
}

TEST(Records, NamesFieldsOfTheWrongType) {
  EXPECT_EQ(parse_message(step(1, "[]") + step(2, "1")), "m.jsonl:1: 'loss' should be a number, found []");
  EXPECT_EQ(parse_message(step(1, "\"big\"") + step(2, "1")), "m.jsonl:1: 'loss' should be a number, found \"big\"");
  EXPECT_EQ(parse_message(step(-1, "1") + step(2, "1")), "m.jsonl:1: 'step' should be a whole number from 0, found -1");
  EXPECT_EQ(parse_message("{\"event\":\"step\"}\n" + step(2, "1")), "m.jsonl:1: 'step' is missing");
  EXPECT_EQ(parse_message("[]\n" + step(2, "1")), "m.jsonl:1: expected an object holding 'event', found array");
}

TEST(Records, RefusesAFileWithoutRecords) {
  EXPECT_EQ(parse_message("\n"), "m.jsonl: no record in it; expected the lines that 'gantry train' writes");
}

TEST(Records, NamesTheRunAfterItsFolderAndTellsEqualNamesApart) {
  const auto root = std::filesystem::path(testing::TempDir()) / "records_test";
  for (const char* folder : {"a/run", "b/run"}) {
    std::filesystem::create_directories(root / folder);
    std::ofstream(root / folder / "metrics.jsonl") << kStart << step(1, "2");
  }
  const auto runs = read_runs({root / "a/run", root / "b/run" / "metrics.jsonl"});
  EXPECT_EQ(runs[0].name, "run");
  EXPECT_EQ(runs[1].name, "run (2)");
  EXPECT_EQ(input_error([&] { read_run(root); }),
            root.string() + ": no metrics.jsonl in this folder; give a folder that 'gantry train --out' wrote");
  EXPECT_NE(input_error([&] { read_run(root / "nothing"); }).find("nothing: cannot open"), std::string::npos);
  EXPECT_NE(input_error([] { read_runs({}); }).find("no run given"), std::string::npos);
  std::filesystem::remove_all(root);
}

TEST(Summary, AveragesTheEndAndTakesTheMedianRate) {
  std::string text = kStart + eval(0, 3);
  for (int index = 1; index <= 100; ++index) {
    text += step(index, std::to_string(index <= 90 ? 5 : 2),
                 R"(,"tokens":10,"memory_bytes":)" + std::to_string(index) + R"(,"tokens_per_s":)" +
                     std::to_string(index == 1 ? 1 : 100));
  }
  const auto summary = summarise(parse_records(text + eval(100, 2), "m"));
  EXPECT_EQ(summary.loss_steps, 10U);
  EXPECT_DOUBLE_EQ(summary.first_loss, 5);
  EXPECT_DOUBLE_EQ(summary.final_loss, 2);
  EXPECT_EQ(summary.tokens, 1000);
  EXPECT_EQ(summary.tokens_per_s, 100);
  EXPECT_EQ(summary.peak_memory_bytes, 100);
  EXPECT_NEAR(summary.first_eval->perplexity, std::exp(3), 1e-9);
  EXPECT_NEAR(summary.last_eval->perplexity, std::exp(2), 1e-9);
}

TEST(Summary, OfARunWithoutStepsIsNotANumber) {
  const auto summary = summarise(parse_records(kStart, "m"));
  EXPECT_TRUE(std::isnan(summary.final_loss));
  EXPECT_TRUE(std::isnan(summary.tokens_per_s));
  EXPECT_TRUE(std::isnan(summary.peak_memory_bytes));
}

}  // namespace
}  // namespace gantry::cli::report
