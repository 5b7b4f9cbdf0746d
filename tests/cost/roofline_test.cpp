#include "gantry/cost/roofline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>

#include "gantry/cost/device_rooflines.h"
#include "tests/cost/pricing_support.h"
#include "tests/formats/test_files.h"

namespace gantry::cost {
namespace {

using formats::testing::input_error;
using testing::measured;

TEST(Roofline, TakesTheTightestBound) {
  const Roofline roofline{1e-5, 1e12, 1e9};
  EXPECT_DOUBLE_EQ(roofline.seconds({1e6, 1e3}), 1e-5);
  EXPECT_DOUBLE_EQ(roofline.seconds({1e9, 1e3}), 1e-3);
  EXPECT_DOUBLE_EQ(roofline.seconds({1e9, 1e7}), 1e-2);
  EXPECT_DOUBLE_EQ((Roofline{1e-5, 0, 0}).seconds({1e18, 1e18}), 1e-5);
}

TEST(Roofline, FitRecoversBoundsThatSamplesShow) {
  const Roofline truth{2e-5, 5e13, 3e11};
  std::vector<RooflineSample> samples;
  for (const double flops : {1e6, 1e8, 1e10, 1e11, 1e12}) {
    for (const double bytes : {1e3, 1e6, 1e8, 1e9}) samples.push_back({{flops, bytes}, truth.seconds({flops, bytes})});
  }
  const Roofline found = fit_roofline(samples, {});
  EXPECT_NEAR(found.launch_s, truth.launch_s, 1e-9);
  EXPECT_NEAR(found.flops_per_s, truth.flops_per_s, 1e4);
  EXPECT_NEAR(found.bytes_per_s, truth.bytes_per_s, 1e2);
  EXPECT_LT(mean_relative_error(found, samples), 1e-9);
}

TEST(Roofline, OneOutlierDoesNotMoveTheFit) {
  std::vector<RooflineSample> samples;
  for (int i = 1; i <= 9; ++i) samples.push_back({{0, i * 1e8}, i * 1e8 / 2e11});
  samples[4].seconds *= 8;
  EXPECT_NEAR(fit_roofline(samples, {}).bytes_per_s, 2e11, 1e3);
}

TEST(Roofline, AFitStaysBelowTheLimitsAndNeedsTwoSamplesForALaunch) {
  const std::vector<RooflineSample> cached{{{0, 1e7}, 1e-5}, {{0, 1e9}, 1e-2}};
  EXPECT_LE(fit_roofline(cached, {0, 2e11}).bytes_per_s, 2e11);
  EXPECT_EQ(fit_roofline(std::vector<RooflineSample>{{{0, 1e7}, 1e-4}}, {}).launch_s, 0);
  EXPECT_EQ(fit_roofline({}, {}).bytes_per_s, 0);
}

TEST(Roofline, ManySamplesAreThinned) {
  std::vector<RooflineSample> samples;
  for (int i = 1; i <= 2000; ++i) samples.push_back({{i * 1e9, i * 1e6}, i * 1e9 / 5e13});
  EXPECT_NEAR(fit_roofline(samples, {}).flops_per_s, 5e13, 1e6);
}

TEST(OperatorWork, CountsFlopsAndBytes) {
  const OperatorWork linear = operator_work("linear", {10, 20, 30}, 2);
  EXPECT_EQ(linear.forward.flops, 2 * 10 * 20 * 30);
  EXPECT_EQ(linear.backward.flops, 2 * linear.forward.flops);
  EXPECT_EQ(linear.forward.bytes, 2 * (200 + 600 + 300));
  const OperatorWork flash = operator_work("attention_flash", {1, 4, 2, 8, 16}, 2);
  EXPECT_EQ(flash.forward.flops, 4 * 36 * 16 * 4);
  EXPECT_EQ(operator_work("residual_add", {100}, 4).forward.bytes, 1200);
  EXPECT_NE(input_error([] {
              operator_work("linear", {1, 2}, 2);
            }).find("linear: expected 3 sizes, found 2"),
            std::string::npos);
  EXPECT_NE(input_error([] { operator_work("conv", {1}, 2); }).find("'conv' is not known"), std::string::npos);
}

TEST(DeviceRooflines, BorrowFromLikeOperatorsBeforeTheDataSheet) {
  Profile profile;
  profile.name = "made up";
  profile.matrix_flops_per_s["fp16"] = 100e12;
  profile.memory_bytes_per_s = 1e12;
  const DeviceRooflines sheet(profile, "fp16");
  EXPECT_EQ(sheet.at("linear").provenance, Provenance::kDataSheet);
  EXPECT_DOUBLE_EQ(sheet.at("linear").forward.flops_per_s, 60e12);
  EXPECT_DOUBLE_EQ(sheet.at("norm").forward.bytes_per_s, .8e12);
  EXPECT_DOUBLE_EQ(sheet.at("attention_flash").backward.flops_per_s, 36e12);

  for (const std::int64_t rows : {1024, 4096}) {
    const double flops = 2.0 * static_cast<double>(rows) * 4096 * 4096;
    profile.operators.push_back(measured("linear", {rows, 4096, 4096}, flops / 50e12, 2 * flops / 40e12));
    const double bytes = static_cast<double>(rows) * 4096 * 1024 * 2;
    profile.operators.push_back(measured("norm", {rows * 1024, 4096}, 2 * bytes / 5e11, 3 * bytes / 5e11));
  }
  const DeviceRooflines fitted(profile, "fp16");
  EXPECT_EQ(fitted.at("attention_flash").provenance, Provenance::kRoofline);
  EXPECT_NEAR(fitted.at("attention_flash").forward.flops_per_s, .75 * 50e12, 1e6);
  EXPECT_NEAR(fitted.at("attention_flash").backward.flops_per_s, .6 * 40e12, 1e6);
  EXPECT_NEAR(fitted.at("rope").forward.bytes_per_s, 5e11, 1e3);
  EXPECT_EQ(fitted.fits().size(), 2);

  profile.operators.clear();
  profile.matrix_flops_per_s.clear();
  const DeviceRooflines no_peak(profile, "fp16");
  EXPECT_NO_THROW(no_peak.at("norm"));
  const std::string message = input_error([&] { no_peak.at("linear"); });
  EXPECT_NE(message.find("profile 'made up': operator 'linear' is not measured in fp16"), std::string::npos);
}

// Each batch of Mist's L4 operators predicted from the three others; mean relative error by operator. The bounds are
// what one roofline an operator can do: residual adds of 25 and 50 MB fit the L4's 48 MB cache, those of 100 MB do not.
struct LeftOut {
  double forward = 0;
  double backward = 0;
  int count = 0;
};

std::int64_t batch_of(const OperatorTime& time) {
  if (time.op == "activation") return time.sizes[0] / (2048 * 8192);
  if (time.sizes.size() == 1 && time.op != "mean") return time.sizes[0] / (2048 * 2048);
  return time.sizes.size() == 5 ? time.sizes[0] : time.sizes[0] / 2048;
}

std::map<std::string, LeftOut> leave_one_batch_out(const Profile& all, const std::set<std::string>& operators) {
  std::map<std::string, LeftOut> errors;
  std::set<std::pair<std::string, std::int64_t>> folds;
  for (const OperatorTime& time : all.operators) {
    if (operators.contains(time.op)) folds.emplace(time.op, batch_of(time));
  }
  for (const auto& [op, batch] : folds) {
    Profile rest = all;
    const auto left_out = [&](const OperatorTime& time) { return time.op == op && batch_of(time) == batch; };
    std::erase_if(rest.operators, left_out);
    const OperatorRoofline roofline = DeviceRooflines(rest, "fp16").at(op);
    for (const OperatorTime& time : all.operators) {
      if (!left_out(time)) continue;
      const OperatorWork work = operator_work(op, time.sizes, 2);
      LeftOut& sum = errors[op];
      sum.forward += std::abs(roofline.forward.seconds(work.forward) / time.forward_s - 1);
      sum.backward += std::abs(roofline.backward.seconds(work.backward) / time.backward_s - 1);
      ++sum.count;
    }
  }
  for (auto& [op, sum] : errors) sum = {sum.forward / sum.count, sum.backward / sum.count, sum.count};
  return errors;
}

TEST(RooflineAccuracy, PredictsBatchesThatWereLeftOut) {
  const std::map<std::string, std::pair<double, double>> bounds{{"linear", {.03, .03}},
                                                                {"attention_flash", {.08, .03}},
                                                                {"attention_scores", {.13, .08}},
                                                                {"attention_values", {.08, .03}},
                                                                {"attention_softmax", {.03, .03}},
                                                                {"cross_entropy", {.03, .03}},
                                                                {"embedding", {.03, .12}},
                                                                {"norm", {.05, .25}},
                                                                {"activation", {.3, .05}},
                                                                {"residual_add", {.7, .6}}};
  std::set<std::string> operators;
  for (const auto& [op, bound] : bounds) operators.insert(op);
  const auto errors = leave_one_batch_out(load_profile("l4-mist"), operators);
  for (const auto& [op, bound] : bounds) {
    const LeftOut& error = errors.at(op);
    std::printf("%-18s %2d entries left out: forward %5.1f %%, backward %5.1f %%\n", op.c_str(), error.count,
                100 * error.forward, 100 * error.backward);
    EXPECT_LE(error.forward, bound.first) << op;
    EXPECT_LE(error.backward, bound.second) << op;
  }
}

// The error of a whole layer is what plans see; those of single operators partly cancel.
TEST(RooflineAccuracy, PredictsALayerAtABatchThatWasLeftOut) {
  const Profile all = load_profile("l4-mist");
  constexpr OperatorRules kRules{.clamp_idle_only = true};
  const OperatorPricer whole(all, "fp16", kRules);
  for (const auto attention : {spec::AttentionMemory::kStore, spec::AttentionMemory::kFlash}) {
    const auto graph = testing::graph_of("gpt-1.3b", {.attention = attention});
    for (const int batch : {1, 2, 4, 8}) {
      Profile rest = all;
      std::erase_if(rest.operators,
                    [&](const OperatorTime& time) { return time.op != "accumulate" && batch_of(time) == batch; });
      const OperatorPricer pricer(rest, "fp16", kRules);
      const SectionSeconds expected = whole.price(graph, graph.layer(0), testing::sizes(batch));
      const SectionSeconds found = pricer.price(graph, graph.layer(0), testing::sizes(batch));
      const double forward = found.forward_s / expected.forward_s - 1;
      const double backward = found.backward_s / expected.backward_s - 1;
      std::printf("layer at batch %d, %s attention: forward %+.1f %%, backward %+.1f %%\n", batch,
                  attention == spec::AttentionMemory::kFlash ? "flash" : "plain", 100 * forward, 100 * backward);
      EXPECT_LE(std::abs(forward), .05);
      EXPECT_LE(std::abs(backward), .05);
      for (const OperatorLine& line : found.lines) EXPECT_EQ(line.provenance, Provenance::kRoofline) << line.op;
    }
  }
}

TEST(RooflineAccuracy, FlashAttentionIsNearWithoutAnyMeasurementOfIt) {
  const Profile all = load_profile("l4-mist");
  Profile rest = all;
  std::erase_if(rest.operators, [](const OperatorTime& time) { return time.op == "attention_flash"; });
  const OperatorRoofline roofline = DeviceRooflines(rest, "fp16").at("attention_flash");
  for (const OperatorTime& time : all.operators) {
    if (time.op != "attention_flash") continue;
    const OperatorWork work = operator_work(time.op, time.sizes, 2);
    EXPECT_NEAR(roofline.forward.seconds(work.forward) / time.forward_s, 1, .25);
    EXPECT_NEAR(roofline.backward.seconds(work.backward) / time.backward_s, 1, .1);
  }
}

TEST(RooflineAccuracy, FitsReportTheirResiduals) {
  const Profile profile = load_profile("l4-mist");
  const OperatorPricer pricer(profile, "fp16", {});
  const auto fits = pricer.fits();
  const auto linear = std::ranges::find(fits, "linear", &RooflineFit::op);
  ASSERT_NE(linear, fits.end());
  EXPECT_EQ(linear->count, 20);
  EXPECT_GT(linear->forward_error, .005);
  EXPECT_LT(linear->forward_error, .03);
  EXPECT_NEAR(linear->forward.flops_per_s, 54e12, 2e12);
}

}  // namespace
}  // namespace gantry::cost
