// Every file of tests/plan/cases.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "gantry/plan/verify.h"
#include "tests/plan/case_file.h"
#include "tests/test_support.h"

namespace gantry::plan {
namespace {

using testing::Case;
using testing::CaseReader;
using testing::Expectation;

std::string summary(const TrainPlan& plan) {
  std::string text = fmt::format("{:.3f} s, {} micro-batches, {}", plan.predicted->iteration_s, plan.accumulation,
                                 schedule_name(plan.schedule));
  for (const Stage& stage : plan.stages) {
    const cost::Policy& p = stage.policy;
    text += fmt::format(
        "\n  {} layers ({} checkpointed) on {}x{}, micro-batch {}, dp {}, tp {}, ZeRO-{}, offload W {} G {} O {} A {}, "
        "{}, {:.2f} GiB",
        stage.layers, stage.checkpointed, stage.mesh.nodes, stage.mesh.per_node, p.micro_batch, p.data_parallel,
        p.tensor_parallel, p.zero, p.weight_offload, p.gradient_offload, p.optimizer_offload, p.activation_offload,
        cost::layer_mode_name(p.mode),
        std::max(stage.predicted->memory_forward_bytes, stage.predicted->memory_backward_bytes) / 1073741824.0);
  }
  return text;
}

SearchResult run(const SearchInput& input, SearchSpace space) {
  SearchOptions options;
  options.space = std::move(space);
  options.best = 1;
  options.least_bad = false;
  return search(input, options);
}

using StageTest = std::function<bool(const Stage&)>;

// Whether some stage of a plan uses a knob.
const std::map<std::string, StageTest>& knob_tests() {
  static const std::map<std::string, StageTest> tests{
      {"data_parallel", [](const Stage& s) { return s.policy.data_parallel > 1; }},
      {"tensor_parallel", [](const Stage& s) { return s.policy.tensor_parallel > 1; }},
      {"sequence_parallel", [](const Stage& s) { return s.policy.sequence_parallel; }},
      {"checkpointing", [](const Stage& s) { return s.checkpointed > 0; }},
      {"zero_2_or_3", [](const Stage& s) { return s.policy.zero >= 2; }},
      {"weight_offload", [](const Stage& s) { return s.policy.weight_offload > 0; }},
      {"gradient_offload", [](const Stage& s) { return s.policy.gradient_offload > 0; }},
      {"optimizer_offload", [](const Stage& s) { return s.policy.optimizer_offload > 0; }},
      {"activation_offload", [](const Stage& s) { return s.policy.activation_offload > 0; }},
      {"layer_modes", [](const Stage& s) { return s.policy.mode != cost::LayerMode::kStore; }},
      {"rerun", [](const Stage& s) { return s.policy.mode >= cost::LayerMode::kRerunMlp; }},
  };
  return tests;
}

class Checker {
 public:
  Checker(const Case& c, const SearchResult& result, const CaseReader& reader)
      : case_(c), result_(result), reader_(reader) {}

  void check(const Expectation& expectation) const {
    const auto& words = expectation.words;
    const std::string where = fmt::format("{}:{}", case_.file, expectation.line);
    if (expectation.key == "feasible") {
      GANTRY_CHECK(words[0] == "yes" || words[0] == "no", "{}: expected yes or no", where);
      EXPECT_EQ(result_.feasible(), words[0] == "yes") << where << (result_.feasible() ? "\n" + summary(plan()) : "");
      return;
    }
    ASSERT_TRUE(result_.feasible()) << where << ": no plan fits";
    SCOPED_TRACE(where + "\n" + summary(plan()));
    if (expectation.key == "iteration_s") {
      GANTRY_CHECK(words.size() == 3 && words[1] == "within", "{}: expected 'iteration_s SECONDS within PERCENT'",
                   where);
      const double share = reader_.number(words[2]) / 100;
      EXPECT_NEAR(seconds() / reader_.number(words[0]), 1, share);
    } else if (expectation.key == "faster_than") {
      faster_than(words, where);
    } else if (expectation.key == "stages") {
      GANTRY_CHECK(words.size() == 3 && words[1] == "to", "{}: expected 'stages FEWEST to MOST'", where);
      EXPECT_GE(static_cast<double>(plan().stages.size()), reader_.number(words[0]));
      EXPECT_LE(static_cast<double>(plan().stages.size()), reader_.number(words[2]));
    } else {
      for (const std::string& knob : words) {
        const auto test = knob_tests().find(knob);
        GANTRY_CHECK(test != knob_tests().end(), "{}: unknown knob '{}'", where, knob);
        EXPECT_EQ(std::ranges::any_of(plan().stages, test->second), expectation.key == "uses") << knob;
      }
    }
  }

 private:
  const TrainPlan& plan() const { return result_.ranked.front(); }
  double seconds() const { return plan().predicted->iteration_s; }

  // "faster_than rival" or "faster_than SPACE by TIMES".
  void faster_than(const std::vector<std::string>& words, const std::string& where) const {
    if (words[0] == "rival") {
      ASSERT_FALSE(case_.rival.stages.empty()) << where << ": no 'stage' lines";
      TrainPlan rival = case_.rival;
      const auto model = cost_model(case_.input, rival);
      evaluate(rival, *model);
      assign_ranks(rival, case_.input.cluster);
      require_sound(rival, case_.input.model, case_.input.cluster);
      ASSERT_TRUE(fits(rival, *model)) << where << ": the rival does not fit\n" << summary(rival);
      EXPECT_LE(seconds(), rival.predicted->iteration_s * (1 + 1e-9)) << "rival: " << summary(rival);
      return;
    }
    GANTRY_CHECK(words.size() == 3 && words[1] == "by", "{}: expected 'faster_than SPACE by TIMES'", where);
    const SearchResult other = run(case_.input, named_space(words[0]));
    ASSERT_TRUE(other.feasible()) << where << ": no plan of space " << words[0] << " fits";
    EXPECT_GE(other.ranked.front().predicted->iteration_s / seconds(), reader_.number(words[2]))
        << words[0] << ": " << summary(other.ranked.front());
  }

  const Case& case_;
  const SearchResult& result_;
  const CaseReader& reader_;
};

const std::filesystem::path kFolder = std::filesystem::path(GANTRY_SOURCE_DIR) / "tests/plan/cases";

std::vector<std::string> case_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    if (entry.path().extension() == ".txt") names.push_back(entry.path().stem().string());
  }
  std::ranges::sort(names);
  return names;
}

class PlannerCase : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Files, PlannerCase, ::testing::ValuesIn(case_names()),
                         [](const auto& info) { return info.param; });

TEST_P(PlannerCase, HasTheExpectedPlan) {
  CaseReader reader(kFolder / (GetParam() + ".txt"));
  const Case c = reader.take();
  const SearchResult result = run(c.input, c.space);
  for (const TrainPlan& plan : result.ranked) {
    EXPECT_TRUE(verify(plan, c.input.model, c.input.cluster).empty());
    EXPECT_TRUE(fits(plan, *cost_model(c.input, plan))) << summary(plan);
  }
  const Checker checker(c, result, reader);
  for (const Expectation& expectation : c.expectations) checker.check(expectation);
}

TEST(PlannerCaseFile, MistakesAreNamedByLine) {
  const tests::TemporaryFolder folder;
  const auto message = [&](std::string_view text) {
    tests::write_raw(folder / "bad.txt", text);
    return tests::input_error([&] { CaseReader(folder / "bad.txt").take(); });
  };
  EXPECT_MENTIONS(message("model gpt-1.3b\nclustre l4-1x2\n"), "bad.txt:2: unknown key 'clustre'");
  EXPECT_MENTIONS(message("# nothing\nmodel\n"), "bad.txt:2: 'model' needs a value");
  EXPECT_MENTIONS(message("batch many\n"), "bad.txt:1: 'many' is not a number");
  EXPECT_MENTIONS(message("stage layers\n"), "bad.txt:1: expected name=number, found 'layers'");
  EXPECT_MENTIONS(message("stage colour=1\n"), "bad.txt:1: unknown part 'colour' of a stage");
  EXPECT_MENTIONS(message("flash_attention maybe\n"), "bad.txt:1: expected on or off");
  EXPECT_MENTIONS(message("model gpt-1.3b\ncluster l4-1x2\nfeasible yes\n"), "model, cluster and batch are needed");
  EXPECT_MENTIONS(message("model gpt-1.3b\ncluster l4-1x2\nbatch 8\n"), "nothing is expected");
}

}  // namespace
}  // namespace gantry::plan
