#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gantry/base/check.h"
#include "gantry/base/env.h"
#include "gantry/base/random.h"
#include "gantry/cost/interference.h"
#include "gantry/cost/interference_report.h"
#include "gantry/cost/overlap_measurements.h"
#include "gantry/cost/profile.h"
#include "tests/test_support.h"

namespace gantry::cost {
namespace {

Factors random_factors(base::CounterRandom& random) {
  Factors factors;
  for (double& f : factors.f) f = 1.0 + 2.0 * random.uniform();
  return factors;
}

/// A full cross product of loads as the campaigns have, timed by the model itself.
std::vector<OverlapSample> synthetic(const Factors& factors, int per_node, int nodes) {
  std::vector<OverlapSample> samples;
  for (int i = 0; i < 256; ++i) {
    OverlapSample sample{.alone_s = {}, .per_node = per_node, .nodes = nodes};
    int busy = 0;
    for (int c = 0; c < kChannels; ++c) {
      const int level = i >> (2 * c) & 3;
      sample.alone_s[c] = level * (3e-3 + 2e-4 * c);
      busy += level > 0;
    }
    sample.together_s = overlap_s(sample.alone_s, factors);
    if (busy >= 2) samples.push_back(sample);
  }
  return samples;
}

using tests::input_error;

TEST(InterferenceFit, PredictsUnseenLoadsOfKnownFactors) {
  base::CounterRandom random(21);
  for (int i = 0; i < 3; ++i) {
    const Factors truth = random_factors(random);
    const auto samples = synthetic(truth, 2, 1);
    const Factors fitted = fit_factors(samples, Factors());
    EXPECT_GT(mean_relative_error(samples, Factors()), 0.2);
    std::vector<OverlapSample> unseen;
    for (int row = 0; row < 300; ++row) {
      OverlapSample sample;
      for (double& x : sample.alone_s) x = 0.012 * random.uniform();
      sample.together_s = overlap_s(sample.alone_s, truth);
      unseen.push_back(sample);
    }
    EXPECT_LT(mean_relative_error(unseen, fitted), 0.02);
  }
}

TEST(InterferenceFit, FindsTheTwoFactorsOfAPair) {
  Factors truth;
  truth.f[factor_index(0b0011, 0)] = 1.9;
  truth.f[factor_index(0b0011, 1)] = 1.4;
  std::vector<OverlapSample> samples;
  for (const double c : {1.0, 2.0, 3.0, 5.0}) {
    for (const double g : {1.0, 2.0, 4.0, 6.0}) {
      samples.push_back({.alone_s = {c, g, 0, 0}, .together_s = overlap_s({c, g, 0, 0}, truth)});
    }
  }
  for (const Factors& fitted : {fit_factors(samples, Factors()), fit_factors_stagewise(samples)}) {
    EXPECT_NEAR(slowdown(fitted, 0b0011, 0), 1.9, 0.02);
    EXPECT_NEAR(slowdown(fitted, 0b0011, 1), 1.4, 0.02);
  }
}

TEST(InterferenceFit, JointBeatsStagewiseWhereSetsFollowEachOther) {
  base::CounterRandom random(22);
  const auto samples = synthetic(random_factors(random), 2, 1);
  const double joint = mean_relative_error(samples, fit_factors(samples, Factors()));
  EXPECT_LT(joint, 0.25 * mean_relative_error(samples, fit_factors_stagewise(samples)));
}

TEST(InterferenceFit, IsDeterministicAndNeverWorseThanItsStart) {
  base::CounterRandom random(23);
  auto samples = synthetic(random_factors(random), 2, 1);
  for (auto& sample : samples) sample.together_s *= 0.95 + 0.1 * random.uniform();
  const Factors start = random_factors(random);
  const FitOptions options{.steps = 500, .seed = 4};
  const Factors fitted = fit_factors(samples, start, options);
  EXPECT_EQ(fitted.f, fit_factors(samples, start, options).f);
  EXPECT_NE(fitted.f, fit_factors(samples, start, {.steps = 500, .seed = 5}).f);
  EXPECT_LE(mean_relative_error(samples, fitted), mean_relative_error(samples, start));
  EXPECT_EQ(fit_factors(samples, start, {.steps = 0}).f, start.f);
  for (const double f : fitted.f) EXPECT_TRUE(f >= 1 && f <= 50) << f;
}

TEST(InterferenceFit, LeavesFactorsWithoutEvidence) {
  Factors start;
  start.f.fill(3.0);
  const std::vector<OverlapSample> samples = {{.alone_s = {1, 0, 2, 0}, .together_s = 2.5},
                                              {.alone_s = {2, 0, 1, 0}, .together_s = 2.7}};
  const Factors fitted = fit_factors(samples, start);
  for (int index = 0; index < kFactorCount; ++index) {
    const bool copy_in_set = index == factor_index(0b0101, 0) || index == factor_index(0b0101, 2);
    if (!copy_in_set) {
      EXPECT_EQ(fitted.f[index], 3.0) << index;
    }
  }
  EXPECT_LT(mean_relative_error(samples, fitted), 0.01);
  EXPECT_EQ(fit_factors({}, start).f, start.f);
}

TEST(InterferenceFit, UnusableSamplesAreExplained) {
  const std::vector<OverlapSample> zero = {{.alone_s = {1, 1, 0, 0}, .together_s = 0}};
  EXPECT_NE(input_error([&] { fit_factors(zero, Factors()); }).find("sample 0 needs stand-alone seconds >= 0"),
            std::string::npos);
  const std::vector<OverlapSample> negative = {{.alone_s = {1, -1, 0, 0}, .together_s = 1}};
  EXPECT_NE(input_error([&] { fit_factors_stagewise(negative); }).find("(1, -1, 0, 0)"), std::string::npos);
  EXPECT_NE(input_error([&] { fit_factors({}, Factors(), {.steps = -1}); }).find("steps must not be negative"),
            std::string::npos);
}

TEST(InterferenceFit, EveryGroupShapeGetsItsOwnFactors) {
  base::CounterRandom random(24);
  auto samples = synthetic(random_factors(random), 2, 1);
  const auto other = synthetic(random_factors(random), 4, 2);
  samples.insert(samples.end(), other.begin(), other.end());
  samples.push_back({.alone_s = {1, 1, 0, 0}, .together_s = 1.5, .per_node = 8, .nodes = 1});  // too few for a set
  const auto sets = fit_shape_factors(samples, Factors());
  ASSERT_EQ(sets.size(), 3u);
  EXPECT_EQ(sets[0].per_node, 0);
  EXPECT_EQ(sets[1].per_node, 2);
  EXPECT_EQ(sets[2].per_node, 4);
  EXPECT_EQ(sets[2].nodes, 2);
  EXPECT_LT(sets[1].residual, 0.5 * sets[0].residual);
  EXPECT_LT(sets[2].residual, 0.5 * sets[0].residual);
  EXPECT_EQ(&shape_factors(sets, 4, 2), &sets[2].factors);
  EXPECT_EQ(&shape_factors(sets, 8, 1), &sets[0].factors);
  EXPECT_EQ(input_error([&] { shape_factors({}, 8, 1); }), "No interference factors for groups of 1 nodes x 8 devices");
}

TEST(InterferenceReport, CoversEveryHeldOutSampleOnce) {
  base::CounterRandom random(25);
  auto samples = synthetic(random_factors(random), 2, 1);
  const auto other = synthetic(random_factors(random), 4, 1);
  samples.insert(samples.end(), other.begin(), other.end());
  const auto report = interference_report(samples, Factors(), {.fit = {.steps = 2000}});
  EXPECT_EQ(report.fitted_samples + report.held_out_samples, static_cast<int>(samples.size()));
  ASSERT_EQ(report.shapes.size(), 2u);
  EXPECT_EQ(report.shapes[0].samples + report.shapes[1].samples, report.held_out_samples);
  double mean = 0;
  for (const auto& shape : report.shapes) mean += shape.per_shape * shape.samples / report.held_out_samples;
  EXPECT_NEAR(report.per_shape, mean, 1e-12);
  EXPECT_NEAR(report.max, report.shipped, 1e-9);  // factors of 1 share nothing
  EXPECT_LT(report.per_shape, report.joint);
  EXPECT_LT(report.joint, report.max);
}

TEST(InterferenceReport, NeedsSamplesToHoldOut) {
  EXPECT_EQ(input_error([] { interference_report({}, Factors()); }),
            "An interference report needs two samples of one group shape, found 0 sample(s)");
}

std::string percent(double value) { return fmt::format("{:6.2f} %", 100 * value); }

struct Campaign {
  const char* folder;
  const char* profile;
  double bar;  ///< of the mean relative error, one set of factors a group shape
};

class MeasuredInterference : public ::testing::TestWithParam<Campaign> {};

TEST_P(MeasuredInterference, PredictsTheHeldOutHalf) {
  const auto data = base::data_dir(GANTRY_SOURCE_DIR);
  if (!data) GTEST_SKIP() << "needs shared/data (GANTRY_DATA)";
  const auto path = *data / GetParam().folder / "overlap_measurements.json";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "needs " << path;
  const Profile profile = load_profile(GetParam().profile);
  const auto measured = read_overlap_measurements(path, profile);
  const Factors& shipped = profile.factors(0, 0);
  const auto report = interference_report(measured.samples, shipped);
  fmt::print("{}: {} samples ({} with another shape's product), {} held out\n", measured.machine,
             measured.samples.size(), measured.stand_ins, report.held_out_samples);
  fmt::print("  sum {}  max {}  shipped {}  stagewise {}  joint {}  per shape {}\n", percent(report.sum),
             percent(report.max), percent(report.shipped), percent(report.stagewise), percent(report.joint),
             percent(report.per_shape));
  for (const auto& shape : report.shapes) {
    fmt::print("  {} nodes x {} devices ({} samples): shipped {}  joint {}  per shape {}\n", shape.nodes,
               shape.per_node, shape.samples, percent(shape.shipped), percent(shape.joint), percent(shape.per_shape));
  }
  EXPECT_LE(report.per_shape, GetParam().bar);
  EXPECT_LT(report.per_shape, report.joint);
  EXPECT_LT(report.joint, report.shipped);
  EXPECT_LT(report.joint, report.stagewise);
  EXPECT_LT(report.shipped, report.max);
  EXPECT_LT(report.shipped, report.sum);
}

INSTANTIATE_TEST_SUITE_P(Campaigns, MeasuredInterference,
                         ::testing::Values(Campaign{"mist-l4", "l4-mist-overlap", 0.013},
                                           Campaign{"mist-a100", "a100-mist", 0.025}),
                         [](const auto& info) { return std::string(info.index == 0 ? "L4" : "A100"); });

}  // namespace
}  // namespace gantry::cost
