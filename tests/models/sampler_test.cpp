// Choosing tokens and cutting text: filters, penalties, stop texts.
#include "gantry/models/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "gantry/base/check.h"
#include "gantry/models/stop_text.h"

namespace gantry::models {
namespace {

using Logits = std::vector<float>;

std::map<std::int32_t, double> shares(const SamplingOptions& options, const Logits& logits, int draws = 20000) {
  Sampler sampler(options);
  std::map<std::int32_t, double> result;
  for (int i = 0; i < draws; ++i) result[sampler.sample(logits, {})] += 1.0 / draws;
  return result;
}

// Logarithms of 0.5, 0.3, 0.15, 0.05, out of order.
const Logits kLogits{std::log(0.15F), std::log(0.5F), std::log(0.05F), std::log(0.3F)};

TEST(Sampler, GreedyTakesTheLowestOfEqualIds) { EXPECT_EQ(Sampler({}).sample(Logits{1, 7, 7, 2}, {}), 1); }

TEST(Sampler, DrawsFollowTheSoftmax) {
  const auto got = shares({.temperature = 1, .seed = 1}, kLogits);
  for (const auto& [id, expected] : std::map<int, double>{{0, 0.15}, {1, 0.5}, {2, 0.05}, {3, 0.3}}) {
    EXPECT_NEAR(got.at(id), expected, 0.015) << id;
  }
}

TEST(Sampler, TemperatureFlattens) {
  const double sum = std::sqrt(0.5) + std::sqrt(0.3) + std::sqrt(0.15) + std::sqrt(0.05);
  EXPECT_NEAR(shares({.temperature = 2, .seed = 2}, kLogits).at(1), std::sqrt(0.5) / sum, 0.015);
}

TEST(Sampler, FiltersKeepWhatTheySay) {
  const auto ids = [](const SamplingOptions& options) {
    std::vector<std::int32_t> result;
    for (const auto& [id, share] : shares(options, kLogits, 3000)) result.push_back(id);
    return result;
  };
  EXPECT_EQ(ids({.temperature = 1, .top_k = 2}), (std::vector<std::int32_t>{1, 3}));
  EXPECT_EQ(ids({.temperature = 1, .top_p = 0.79}), (std::vector<std::int32_t>{1, 3}));
  EXPECT_EQ(ids({.temperature = 1, .top_p = 0.81}), (std::vector<std::int32_t>{0, 1, 3}));
  EXPECT_EQ(ids({.temperature = 1, .top_p = 1e-9}), (std::vector<std::int32_t>{1}));
  EXPECT_EQ(ids({.temperature = 1, .min_p = 0.5}), (std::vector<std::int32_t>{1, 3}));
  EXPECT_EQ(ids({.temperature = 1, .top_k = 100}), (std::vector<std::int32_t>{0, 1, 2, 3}));
}

TEST(Sampler, RepetitionPenaltyWeakensBothSigns) {
  const std::vector<std::int32_t> seen{0, 0, 99, -1};
  EXPECT_EQ(Sampler({.repetition_penalty = 2}).sample(Logits{3, 2}, seen), 1);
  EXPECT_EQ(Sampler({.repetition_penalty = 2}).sample(Logits{-1, -1.5F}, seen), 1);
  EXPECT_EQ(Sampler({.repetition_penalty = 1.2}).sample(Logits{3, 2}, seen), 0) << "a repeated id counts once";
}

TEST(Sampler, ExtremeValuesStillTakeTheLikeliest) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(Sampler({.temperature = 1e-60}).sample(Logits{1, 3, 2}, {}), 1);
  EXPECT_EQ(Sampler({.temperature = 1}).sample(Logits{-kInf, 3, -kInf}, {}), 1);
  EXPECT_EQ(Sampler({.temperature = 1}).sample(Logits{0, kInf, 0}, {}), 1);
}

TEST(Sampler, SeedsReproduce) {
  const auto run = [](std::uint64_t seed) {
    Sampler sampler({.temperature = 1, .seed = seed});
    std::vector<std::int32_t> ids;
    for (int i = 0; i < 40; ++i) ids.push_back(sampler.sample(kLogits, {}));
    return ids;
  };
  EXPECT_EQ(run(3), run(3));
  EXPECT_NE(run(3), run(4));
}

TEST(Sampler, ErrorsNameTheOption) {
  const auto message = [](const SamplingOptions& options) -> std::string {
    try {
      validate(options);
    } catch (const base::InputError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_NE(message({.temperature = -1}).find("temperature -1"), std::string::npos);
  EXPECT_NE(message({.temperature = std::nan("")}).find("temperature nan"), std::string::npos);
  EXPECT_NE(message({.top_k = -5}).find("top_k -5"), std::string::npos);
  EXPECT_NE(message({.top_p = 0}).find("top_p 0"), std::string::npos);
  EXPECT_NE(message({.min_p = 1}).find("min_p 1"), std::string::npos);
  EXPECT_NE(message({.repetition_penalty = INFINITY}).find("repetition_penalty inf"), std::string::npos);
  EXPECT_THROW(Sampler({}).sample(Logits{1, std::nanf("")}, {}), base::InputError);
}

TEST(StopText, IsFoundAcrossPiecesAndNeverShown) {
  StopTextFilter filter({"END", "", "stop"});
  EXPECT_EQ(filter.push("abE"), "ab");
  EXPECT_EQ(filter.push("N"), "");
  EXPECT_EQ(filter.push("xEN"), "ENx") << "what was held back and is no stop text";
  EXPECT_EQ(filter.push("D more"), "");
  EXPECT_TRUE(filter.stopped());
  EXPECT_EQ(filter.push("later"), "");
}

TEST(StopText, TheFirstOfSeveralWinsAndFlushReturnsTheRest) {
  StopTextFilter filter({"bb", "aba"});
  EXPECT_EQ(filter.push("xabab"), "x");
  EXPECT_TRUE(filter.stopped());
  StopTextFilter held({"aab"});
  EXPECT_EQ(held.push("aaa"), "a") << "the longest tail that begins a stop text stays";
  EXPECT_EQ(held.flush(), "aa");
  EXPECT_FALSE(held.stopped());
}

}  // namespace
}  // namespace gantry::models
