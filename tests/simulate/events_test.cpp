#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "gantry/simulate/pipeline.h"
#include "tests/simulate/sample_stages.h"

namespace gantry::simulate {
namespace {

using plan::Schedule;

struct Case {
  std::vector<cost::StagePhases> stages;
  Schedule schedule = Schedule::kOneFOneB;
  int chunks = 1;
  int accumulation = 1;
};

Case random_case(base::CounterRandom& random, Schedule schedule) {
  Case result;
  result.schedule = schedule;
  const auto count = static_cast<int>(1 + random.below(5));
  for (int i = 0; i < count; ++i) result.stages.push_back(random_stage(random));
  result.accumulation = static_cast<int>(1 + random.below(9));
  if (schedule == Schedule::kInterleaved) {
    result.chunks = static_cast<int>(1 + random.below(3));
    result.accumulation = count * static_cast<int>(1 + random.below(3));
  }
  return result;
}

struct Interval {
  double start_s = 1e300;
  double end_s = -1e300;
  void add(const Event& event) {
    start_s = std::min(start_s, event.start_s);
    end_s = std::max(end_s, event.end_s);
  }
};

/// Compute of passes by (stage, chunk, micro-batch).
using Passes = std::map<std::tuple<int, int, int>, Interval>;
struct PassMap {
  Passes forward, backward, weights;
};

PassMap passes_of(const Outcome& outcome) {
  PassMap passes;
  for (const Event& event : outcome.events) {
    if (event.channel != cost::Channel::kCompute || event.micro_batch < 0) continue;
    Passes& map = event.name == "forward"           ? passes.forward
                  : event.name == "weight-gradient" ? passes.weights
                                                    : passes.backward;
    map[{event.stage, event.chunk, event.micro_batch}].add(event);
  }
  return passes;
}

constexpr double kSlack = 1e-9;

void expect_dependencies(const Case& test, const PassMap& passes) {
  const int count = static_cast<int>(test.stages.size()), last = count - 1;
  const auto p2p = [&](int stage) { return count > 1 ? test.stages[static_cast<std::size_t>(stage)].p2p_s : 0; };
  for (int m = 0; m < test.accumulation; ++m) {
    for (int c = 0; c < test.chunks; ++c) {
      for (int i = 0; i < count; ++i) {
        const Interval& forward = passes.forward.at({i, c, m});
        const Interval& backward = passes.backward.at({i, c, m});
        if (i > 0) {
          EXPECT_GE(forward.start_s, passes.forward.at({i - 1, c, m}).end_s + p2p(i - 1) - kSlack);
        }
        if (i == 0 && c > 0) {
          EXPECT_GE(forward.start_s, passes.forward.at({last, c - 1, m}).end_s + p2p(last) - kSlack);
        }
        if (i < last) {
          EXPECT_GE(backward.start_s, passes.backward.at({i + 1, c, m}).end_s + p2p(i + 1) - kSlack);
        }
        if (i == last && c + 1 < test.chunks) {
          EXPECT_GE(backward.start_s, passes.backward.at({0, c + 1, m}).end_s + p2p(0) - kSlack);
        }
        EXPECT_GE(backward.start_s, forward.end_s - kSlack);
        if (!passes.weights.empty()) {
          EXPECT_GE(passes.weights.at({i, c, m}).start_s, backward.end_s - kSlack);
        }
      }
    }
  }
}

void expect_channels_do_one_thing(const Outcome& outcome) {
  std::map<std::pair<int, cost::Channel>, double> end;
  for (const Event& event : outcome.events) {  // by start
    double& before = end[{event.stage, event.channel}];
    EXPECT_GE(event.start_s, before - kSlack) << event.name << " of stage " << event.stage;
    EXPECT_GT(event.end_s, event.start_s);
    EXPECT_LE(event.end_s, outcome.iteration_s + kSlack);
    before = event.end_s;
  }
}

void expect_totals(const Outcome& outcome) {
  std::vector<double> busy(outcome.busy_s.size());
  double last = 0;
  for (const Event& event : outcome.events) {
    last = std::max(last, event.end_s);
    if (event.channel == cost::Channel::kCompute)
      busy[static_cast<std::size_t>(event.stage)] += event.end_s - event.start_s;
  }
  EXPECT_NEAR(last, outcome.iteration_s, kSlack);
  for (std::size_t i = 0; i < busy.size(); ++i) EXPECT_NEAR(busy[i], outcome.busy_s[i], kSlack);
}

/// The most passes of a stage between the start of their forward and the end of what needs their activations.
double peak(const Case& test, const PassMap& passes, int stage) {
  std::vector<std::pair<double, int>> changes;
  for (const auto& [key, forward] : passes.forward) {
    if (std::get<0>(key) != stage) continue;
    const Passes& until = passes.weights.empty() ? passes.backward : passes.weights;
    changes.emplace_back(forward.start_s, 1);
    changes.emplace_back(until.at(key).end_s - kSlack, -1);
  }
  std::ranges::sort(changes);
  int alive = 0, most = 0;
  for (const auto& change : changes) most = std::max(most, alive += change.second);
  return static_cast<double>(most) / test.chunks;
}

TEST(Events, KeepDependenciesChannelsAndTotals) {
  base::CounterRandom random(21);
  for (const Schedule schedule : plan::kAllSchedules) {
    for (int trial = 0; trial < 60; ++trial) {
      const Case test = random_case(random, schedule);
      for (const double noise : {0.0, 0.3}) {
        SimulationOptions options;
        options.noise = noise;
        options.seed = static_cast<std::uint64_t>(trial);
        Case checked = test;
        if (noise > 0) {
          for (auto& stage : checked.stages) stage.p2p_s = 0;  // transfers of unknown length: order alone
        }
        const Outcome outcome = run(test.stages, test.schedule, test.chunks, test.accumulation, options);
        const PassMap passes = passes_of(outcome);
        expect_dependencies(checked, passes);
        expect_channels_do_one_thing(outcome);
        expect_totals(outcome);
        for (int i = 0; i < static_cast<int>(test.stages.size()); ++i) {
          EXPECT_EQ(outcome.peak_in_flight[static_cast<std::size_t>(i)], peak(test, passes, i));
        }
        if (HasFailure()) FAIL() << plan::schedule_name(schedule) << " trial " << trial << " noise " << noise;
      }
    }
  }
}

TEST(Events, RecordingChangesNothing) {
  base::CounterRandom random(22);
  for (const Schedule schedule : plan::kAllSchedules) {
    for (int trial = 0; trial < 20; ++trial) {
      const Case test = random_case(random, schedule);
      SimulationOptions options;
      options.noise = trial % 2 == 0 ? 0 : 0.1;
      const Outcome recorded = run(test.stages, test.schedule, test.chunks, test.accumulation, options);
      options.record = false;
      const Outcome plain = run(test.stages, test.schedule, test.chunks, test.accumulation, options);
      EXPECT_EQ(plain.iteration_s, recorded.iteration_s);
      EXPECT_EQ(plain.bubble_s, recorded.bubble_s);
      EXPECT_TRUE(plain.events.empty());
      EXPECT_FALSE(recorded.events.empty());
    }
  }
}

TEST(Events, RecomputationPrecedesTheBackward) {
  cost::StagePhases stage = plain_stage(1, 3);
  stage.backward[0].recompute_s = stage.backward_last[0].recompute_s = 1;
  const Outcome outcome = run({stage}, Schedule::kOneFOneB, 1, 1);
  ASSERT_EQ(outcome.events.size(), 3U);
  EXPECT_EQ(outcome.events[1].name, "recompute");
  EXPECT_DOUBLE_EQ(outcome.events[1].end_s, 2);
  EXPECT_EQ(outcome.events[2].name, "backward");
  EXPECT_DOUBLE_EQ(outcome.events[2].end_s, 4);
}

TEST(Noise, IsDeterministicAndDependsOnTheSeed) {
  const auto stages = equal_stages(4, plain_stage(1, 2));
  SimulationOptions options;
  options.noise = 0.1;
  const double first = run(stages, Schedule::kOneFOneB, 1, 16, options).iteration_s;
  EXPECT_EQ(run(stages, Schedule::kOneFOneB, 1, 16, options).iteration_s, first);
  options.seed = 2;
  EXPECT_NE(run(stages, Schedule::kOneFOneB, 1, 16, options).iteration_s, first);
}

TEST(Noise, HasMeanOneAndItsDeviation) {
  // One stage: the iteration is a sum of independent pieces.
  SimulationOptions options;
  options.noise = 0.2;
  const int pieces = 20000;
  const Outcome outcome = run({plain_stage(1, 1)}, Schedule::kOneFOneB, 1, pieces / 2, options);
  EXPECT_NEAR(outcome.iteration_s / pieces, 1, 4 * 0.2 / std::sqrt(pieces));
  double squares = 0;
  for (const Event& event : outcome.events) squares += std::pow(std::log(event.end_s - event.start_s) + 0.02, 2);
  EXPECT_NEAR(std::sqrt(squares / pieces), 0.2, 0.005);
}

TEST(Straggler, SlowsTheIterationByItsOwnTime) {
  const auto stages = equal_stages(4, plain_stage(1, 2));
  SimulationOptions options;
  options.straggler_factor = 1.5;  // of no stage
  EXPECT_DOUBLE_EQ(run(stages, Schedule::kOneFOneB, 1, 8, options).iteration_s, closed_form(stages, 8));
  options.straggler_stage = 2;
  auto slower = stages;
  slower[2] = plain_stage(1.5, 3);
  const double expected = run(slower, Schedule::kOneFOneB, 1, 8).iteration_s;
  EXPECT_NEAR(run(stages, Schedule::kOneFOneB, 1, 8, options).iteration_s, expected, 1e-12);
  EXPECT_GT(expected, closed_form(stages, 8) + 8);
}

}  // namespace
}  // namespace gantry::simulate
