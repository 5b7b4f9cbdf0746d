#include "gantry/cost/collectives.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "gantry/base/check.h"
#include "tests/test_support.h"

namespace gantry::cost {
namespace {

constexpr double kGb = 1073741824.0;

Link link(double gb_per_s, double latency_s) { return {.gb_per_s = gb_per_s, .latency_s = latency_s}; }

/// The L4 links of the published fit, and the placeholder that stands for a group of one.
Profile l4() {
  Profile profile;
  profile.name = "test";
  profile.collectives = {{1, 1, link(4.5, 0)},        {2, 1, link(2.964, .0001)},  {4, 1, link(4.1635, .0004)},
                         {8, 1, link(4.6832, .0003)}, {1, 2, link(.4895, .0045)},  {2, 2, link(.9791, .0076)},
                         {4, 2, link(1.7183, 0)},     {8, 2, link(3.3215, .0013)}, {1, 4, link(.4609, .0102)},
                         {2, 4, link(.9195, .0008)},  {4, 4, link(1.6759, .0045)}, {8, 4, link(2.9659, .003)}};
  return profile;
}

using tests::input_error;

TEST(Collectives, GoldenTimesOfABlockAndOfTheEmbedding) {
  const double block = 96.015625 * 1048576, embedding = 196.5 * 1048576;
  bool estimated = true;
  EXPECT_NEAR(collective_s(l4(), Collective::kAllGather, block, {1, 2}, &estimated), .015917351, 1e-9);
  EXPECT_FALSE(estimated);
  EXPECT_NEAR(collective_s(l4(), Collective::kReduceScatter, block, {1, 2}), .017509086, 1e-9);
  EXPECT_NEAR(collective_s(l4(), Collective::kAllGather, embedding, {1, 2}), .032470872, 1e-9);
  EXPECT_NEAR(collective_s(l4(), Collective::kReduceScatter, embedding, {1, 2}), .035717960, 1e-9);
}

TEST(Collectives, AnAllReduceIsTheSumOfBothHalves) {
  const auto time = [](Collective kind) { return collective_s(l4(), kind, 5e8, {2, 4}); };
  EXPECT_NEAR(time(Collective::kAllReduce), time(Collective::kAllGather) + time(Collective::kReduceScatter), 1e-12);
  EXPECT_NEAR(time(Collective::kAllGather), 5e8 / kGb / 1.7183 * 7 / 8, 1e-12);
}

TEST(Collectives, AGroupOfOneAndNoBytesCostNothing) {
  EXPECT_EQ(collective_s(l4(), Collective::kAllReduce, 1e9, {1, 1}), 0);
  EXPECT_EQ(collective_s(Profile(), Collective::kAllReduce, 1e9, {1, 1}), 0);
  EXPECT_EQ(collective_s(l4(), Collective::kAllReduce, 0, {2, 8}), 0);
  EXPECT_EQ(copy_s(link(1, 1), 0), 0);
}

TEST(Collectives, DevicesBetweenMeasuredShapesAreInterpolated) {
  const auto three = collective_link(l4(), {1, 3});
  EXPECT_TRUE(three.estimated);
  EXPECT_NEAR(three.link.gb_per_s, (2.964 + 4.1635) / 2, 1e-12);
  EXPECT_NEAR(three.link.latency_s, .00025, 1e-12);
  const auto sixteen = collective_link(l4(), {1, 16});  // beyond the measured range: the nearest
  EXPECT_TRUE(sixteen.estimated);
  EXPECT_EQ(sixteen.link.gb_per_s, 4.6832);
}

TEST(Collectives, UnmeasuredNumbersOfNodesTakeTheNextLargerElseTheLargest) {
  for (const int nodes : {3, 5, 128}) {
    const auto choice = collective_link(l4(), {nodes, 8});
    EXPECT_TRUE(choice.estimated);
    EXPECT_EQ(choice.link.gb_per_s, 2.9659) << nodes;
  }
  Profile across = l4();
  std::erase_if(across.collectives, [](const CollectiveLink& l) { return l.nodes == 1; });
  EXPECT_EQ(collective_link(across, {1, 4}).link.gb_per_s, 1.7183);
}

TEST(Collectives, AGroupOnSeveralNodesNeverTakesALinkWithinOne) {
  Profile within = l4();
  std::erase_if(within.collectives, [](const CollectiveLink& l) { return l.nodes > 1; });
  EXPECT_EQ(input_error([&] {
              collective_s(within, Collective::kAllGather, 1e6, {2, 4});
            }),
            "Profile test holds no collective link between nodes and cannot price a group of 2 nodes x 4 devices; "
            "measure one with 'gantry profile' or add it to the profile's \"collectives\"");
  EXPECT_NE(input_error([&] { p2p_s(within, 1e6, true); }).find("between nodes"), std::string::npos);
  within.collectives.resize(1);  // only the placeholder of a group of one
  EXPECT_NE(input_error([&] { collective_link(within, {1, 2}); }).find("no collective link at all"), std::string::npos);
}

TEST(Collectives, MoreBytesNeverTakeLess) {
  for (const int nodes : {1, 2, 3, 4, 9}) {
    for (const int per_node : {1, 2, 3, 5, 8, 16}) {
      if (nodes * per_node == 1) continue;
      const GroupShape group{nodes, per_node};
      EXPECT_LT(collective_s(l4(), Collective::kAllGather, 1e6, group),
                collective_s(l4(), Collective::kAllGather, 2e6, group));
    }
  }
}

TEST(Collectives, PointToPointTakesItsOwnLinkElseThePairOfDevices) {
  Profile profile = l4();
  EXPECT_NEAR(p2p_s(profile, kGb, false), 1 / 2.964 + .0001, 1e-12);
  EXPECT_NEAR(p2p_s(profile, kGb, true), 1 / .4895 + .0045, 1e-12);
  profile.p2p_inter = link(2, .5);
  EXPECT_NEAR(p2p_s(profile, kGb, true), 1.0, 1e-12);
  EXPECT_EQ(p2p_s(profile, 0, true), 0);
}

TEST(Collectives, GroupsWithoutDevicesAreRefused) {
  EXPECT_EQ(input_error([] { collective_link(l4(), {0, 8}); }), "A group of 0 nodes x 8 devices has no collective");
}

TEST(FitLink, FindsTheLinkOfExactSamples) {
  std::vector<LinkSample> samples;
  for (int i = 1; i <= 6; ++i) samples.push_back({i * 1e8, copy_s(link(4.25, .0031), i * 1e8)});
  const Link fitted = fit_link(samples);
  EXPECT_NEAR(fitted.gb_per_s, 4.25, 1e-9);
  EXPECT_NEAR(fitted.latency_s, .0031, 1e-12);
  EXPECT_NEAR(fitted.residual, 0, 1e-12);
  EXPECT_EQ(fitted.provenance, Provenance::kFitted);
}

TEST(FitLink, LatencyIsNotNegative) {
  const std::vector<LinkSample> samples = {{1 * kGb, 1.0}, {2 * kGb, 2.5}, {3 * kGb, 3.5}};
  const Link fitted = fit_link(samples);
  EXPECT_EQ(fitted.latency_s, 0);
  EXPECT_NEAR(fitted.gb_per_s, 14 / 16.5, 1e-12);  // through the origin
  EXPECT_GT(fitted.residual, 0);
}

TEST(FitLink, UnusableSamplesAreExplained) {
  const auto fit = [](std::vector<LinkSample> samples) { return input_error([&] { fit_link(samples); }); };
  EXPECT_EQ(fit({{1e6, 1}}), "Fit of a link: at least two sizes are needed, found 1 sample(s)");
  EXPECT_EQ(fit({{1e6, 1}, {1e6, 2}}),
            "Fit of a link: at least two sizes are needed, all 2 samples have 1000000 bytes");
  EXPECT_EQ(fit({{1e6, 1}, {-1, 2}}),
            "Fit of a link: every sample needs positive bytes and seconds, found -1 bytes in 2 s");
  EXPECT_NE(fit({{1e6, 1}, {2e6, 1}}).find("larger sizes took no longer"), std::string::npos);
}

}  // namespace
}  // namespace gantry::cost
