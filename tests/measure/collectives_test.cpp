// Two ranks in two threads of this process: the same store and the same Gloo groups as between processes.
#include "gantry/measure/collectives.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <thread>

#include "gantry/measure/interference.h"
#include "tests/test_support.h"

namespace gantry::measure {
namespace {

/// Runs `body(meeting)` as every rank of one node; rank 0 in this thread.
template <class Body>
void as_ranks(int ranks, const Body& body) {
  MeetingPoint first({.ranks = ranks, .per_node = ranks}, 20);
  std::vector<std::jthread> others;
  for (int rank = 1; rank < ranks; ++rank) {
    others.emplace_back([&, rank] {
      MeetingPoint meeting({.rank = rank, .ranks = ranks, .per_node = ranks, .port = first.place().port}, 20);
      body(meeting);
    });
  }
  body(first);
}

TEST(Collectives, TwoRanksGiveALinkAndOnlyRankZeroReportsIt) {
  std::array<std::vector<MeasuredCollective>, 2> results;
  as_ranks(2, [&](MeetingPoint& meeting) {
    Group world(meeting, {.nodes = 1, .per_node = 2});
    const CollectiveOptions options{.sizes_bytes = {1 << 16, 1 << 20, 1 << 22}, .runs = 3};
    results.at(static_cast<std::size_t>(world.rank())) = measure_collectives(meeting, world, options, {});
  });
  ASSERT_EQ(results[0].size(), 1u);
  EXPECT_TRUE(results[1].empty());
  const MeasuredCollective& pair = results[0].front();
  EXPECT_EQ(pair.shape.per_node, 2);
  EXPECT_GT(pair.link.gb_per_s, 0.001);
  EXPECT_LT(pair.link.gb_per_s, 1000);
  EXPECT_GT(pair.reduce_scatter_ratio, 0);
  EXPECT_GT(pair.all_reduce_ratio, 0);
}

TEST(Collectives, RanksAgreeOnTheValuesOfRankZero) {
  as_ranks(2, [&](MeetingPoint& meeting) {
    Group world(meeting, {.nodes = 1, .per_node = 2});
    const std::vector<std::int64_t> own{10 + world.rank(), 20 + world.rank()};
    EXPECT_EQ(world.agree(own), (std::vector<std::int64_t>{10, 20}));
  });
}

TEST(Collectives, GroupsGrowByPowersOfTwoWithinANodeAndAcrossNodes) {
  const auto text = [](const RankPlace& place) {
    std::string words;
    for (const cost::GroupShape shape : shapes_to_measure(place)) {
      words += fmt::format("{}x{} ", shape.nodes, shape.per_node);
    }
    return words;
  };
  EXPECT_EQ(text({.ranks = 1, .per_node = 1}), "");
  EXPECT_EQ(text({.ranks = 2, .per_node = 2}), "1x2 ");
  EXPECT_EQ(text({.ranks = 6, .per_node = 6}), "1x2 1x4 1x6 ");
  EXPECT_EQ(text({.ranks = 8, .per_node = 4}), "1x2 1x4 2x1 2x2 2x4 ");
}

TEST(Collectives, ARankThatNobodyAnswersSaysWhere) {
  const RankPlace place{.rank = 1, .ranks = 2, .per_node = 2, .port = 1};
  const std::string message = tests::message_of<base::Error>([&] { MeetingPoint meeting(place, 1); });
  EXPECT_MENTIONS(message, "rank 1 cannot meet the others at 127.0.0.1:1");
}

TEST(Interference, ChannelsOfOneProcessAreMeasuredWithoutACollective) {
  const InterferenceOptions options{.short_s = 5e-4, .long_s = 1.5e-3, .repeats = 2};
  int rounds = 0;
  const MeasuredInterference result = measure_interference(nullptr, options, [&](int round) { rounds = round + 1; });
  EXPECT_EQ(rounds, 2);
  EXPECT_EQ(result.samples.size(), 20u);  // 27 combinations of three channels less none and six with one channel
  for (const cost::OverlapSample& sample : result.samples) {
    EXPECT_GT(sample.together_s, 0);
    EXPECT_EQ(sample.alone_s[static_cast<std::size_t>(cost::Channel::kCollective)], 0);
  }
  for (const double factor : result.factors.f) EXPECT_GE(factor, 1);
  const int with_collective = cost::factor_index(0b0011, 0);
  EXPECT_EQ(result.factors.f.at(static_cast<std::size_t>(with_collective)), 1);
}

TEST(Interference, TwoRanksMeasureAllSetsOfChannels) {
  std::array<MeasuredInterference, 2> results;
  as_ranks(2, [&](MeetingPoint& meeting) {
    Group world(meeting, {.nodes = 1, .per_node = 2});
    const InterferenceOptions options{.short_s = 5e-4, .long_s = 1.5e-3, .repeats = 1};
    results.at(static_cast<std::size_t>(world.rank())) = measure_interference(&world, options, {});
  });
  EXPECT_EQ(results[0].samples.size(), 72u);  // 81 less none and eight with one channel
  EXPECT_TRUE(results[1].samples.empty());
  EXPECT_LE(results[0].residual, results[0].sum_error);
}

class Launch : public ::testing::Test {
 protected:
  void TearDown() override {
    for (const std::string& name : set_) ::unsetenv(name.c_str());
  }
  void set(const std::string& name, const std::string& value) {
    ::setenv(name.c_str(), value.c_str(), 1);
    set_.push_back(name);
  }

 private:
  std::vector<std::string> set_;
};

TEST_F(Launch, NoLauncherMeansNoPlace) { EXPECT_FALSE(launched_place()); }

TEST_F(Launch, TorchrunsVariablesAreRead) {
  set("RANK", "5");
  set("WORLD_SIZE", "8");
  set("LOCAL_WORLD_SIZE", "4");
  set("MASTER_ADDR", "node0");
  set("MASTER_PORT", "1234");
  set("TORCHELASTIC_USE_AGENT_STORE", "True");
  const RankPlace place = launched_place().value();
  EXPECT_EQ(place.node(), 1);
  EXPECT_EQ(place.local_rank(), 1);
  EXPECT_EQ(place.nodes(), 2);
  EXPECT_EQ(place.address, "node0");
  EXPECT_EQ(place.port, 1234);
  EXPECT_TRUE(place.served);
}

TEST_F(Launch, SlurmCountsTasksOfEachNode) {
  set("SLURM_PROCID", "2");
  EXPECT_FALSE(launched_place()) << "a batch script is no rank";
  set("SLURM_STEP_NUM_TASKS", "4");
  set("SLURM_STEP_TASKS_PER_NODE", "2(x2)");
  EXPECT_MENTIONS(tests::input_error([] { launched_place(); }), "set MASTER_ADDR to the host of rank 0");
  set("MASTER_ADDR", "node0");
  const RankPlace place = launched_place().value();
  EXPECT_EQ(place.per_node, 2);
  EXPECT_EQ(place.port, 29500);
  EXPECT_FALSE(place.served);
}

TEST_F(Launch, SenselessVariablesAreNamed) {
  set("OMPI_COMM_WORLD_RANK", "2");
  set("OMPI_COMM_WORLD_SIZE", "2");
  EXPECT_MENTIONS(tests::input_error([] { launched_place(); }), "OMPI_COMM_WORLD_RANK must be a number from 0 to 1");
  set("OMPI_COMM_WORLD_RANK", "1");
  set("OMPI_COMM_WORLD_LOCAL_SIZE", "3");
  EXPECT_MENTIONS(tests::input_error([] { launched_place(); }), "2 ranks with 3 on a node");
}

}  // namespace
}  // namespace gantry::measure
