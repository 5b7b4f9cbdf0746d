#include "gantry/plan/explain.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "gantry/plan/verify.h"
#include "tests/plan/search_support.h"
#include "tests/test_support.h"

namespace gantry::plan {
namespace {

using testing::search_input;

SearchOptions quick_options() {
  SearchOptions options;
  options.space = named_space("mist");
  options.space.gradients = options.space.weights = {0};
  options.space.optimizer = options.space.activations = {0, .5, 1};
  options.best = 1;
  return options;
}

double found_s(const SearchResult& result) {
  return result.feasible() ? result.ranked.front().predicted->iteration_s : INFINITY;
}

TEST(Explanation, PartsAddUpToTheIteration) {
  for (const char* name : {"gpt-1.3b", "llama-2.7b"}) {
    const SearchInput input = search_input(name, "l4-1x4", 32);
    const SearchResult result = search(input, quick_options());
    ASSERT_TRUE(result.feasible());
    const TrainPlan& plan = result.ranked.front();
    const PlanExplanation why = explain(plan, *cost_model(input, plan));
    EXPECT_NEAR(why.steady_s + why.fill_s + why.delta_s, plan.predicted->iteration_s, 1e-9);
    EXPECT_GE(why.delta_s, -1e-9);
    ASSERT_EQ(why.stages.size(), plan.stages.size());
    for (std::size_t i = 0; i < plan.stages.size(); ++i) {
      const StagePrediction& predicted = *plan.stages[i].predicted;
      double time = 0, forward = 0, backward = 0;
      for (const auto& term : why.stages[i].time) time += term.value;
      for (const auto& term : why.stages[i].memory_forward) forward += term.value;
      for (const auto& term : why.stages[i].memory_backward) backward += term.value;
      EXPECT_NEAR(time, predicted.t_s, 1e-9);
      EXPECT_NEAR(forward, predicted.memory_forward_bytes, 16);
      EXPECT_NEAR(backward, predicted.memory_backward_bytes, 16);
      EXPECT_LE(predicted.t_s, plan.stages[static_cast<std::size_t>(why.slowest_stage)].predicted->t_s);
    }
    EXPECT_MENTIONS(why.binding, "binds");
    EXPECT_MENTIONS(why.binding, "GiB");
  }
}

TEST(Knobs, NoPlanIsFasterWithoutOne) {
  const SearchInput input = search_input("gpt-2.7b", "l4-1x4", 32);
  const SearchOptions options = quick_options();
  const double best = found_s(search(input, options));
  const std::vector<KnobValue> values = knob_values(input, options);
  EXPECT_EQ(values.size(), tunable_knobs(options.space).size());
  double before = INFINITY;
  for (const KnobValue& value : values) {
    EXPECT_GE(value.iteration_s, best * (1 - 1e-9)) << value.knob;
    EXPECT_LE(value.iteration_s, before) << "slow ones first";
    before = value.iteration_s;
  }
  EXPECT_GT(values.front().iteration_s, best * 1.01) << "some knob matters";
}

TEST(Knobs, ThoseThatTheBestPlanDoesNotUseCostNothingAndNoSearch) {
  const SearchInput input = search_input("gpt-2.7b", "l4-1x4", 32);
  SearchOptions options = quick_options();
  const TrainPlan best = search(input, options).ranked.front();
  const std::vector<KnobValue> searched = knob_values(input, options);
  const std::vector<KnobValue> quick = knob_values(input, options, &best);
  ASSERT_EQ(searched.size(), quick.size());
  const auto value = [](const std::vector<KnobValue>& values, const std::string& knob) {
    return std::ranges::find(values, knob, &KnobValue::knob)->iteration_s;
  };
  int skipped = 0;
  for (const auto& [knob, seconds] : searched) {
    EXPECT_DOUBLE_EQ(seconds, value(quick, knob)) << knob;
    skipped += uses_knob(best, knob) ? 0 : 1;
  }
  EXPECT_GT(skipped, 0);
  EXPECT_MENTIONS(tests::input_error([&] { uses_knob(best, "luck"); }), "'luck' is not a knob");

  // Its progress runs from 0 to 1 over all searches.
  std::vector<double> shares;
  options.progress = [&](double share) { shares.push_back(share); };
  knob_values(input, options, &best);
  EXPECT_TRUE(std::ranges::is_sorted(shares));
  EXPECT_LE(shares.back(), 1);
}

TEST(Knobs, WithoutAKnobItIsNoLongerTunable) {
  for (const char* name : {"megatron", "deepspeed", "aceso", "mist", "full"}) {
    const SearchSpace space = named_space(name);
    for (const std::string& knob : tunable_knobs(space)) {
      const auto left = tunable_knobs(without_knob(space, knob));
      EXPECT_EQ(std::ranges::count(left, knob), 0) << name << ": " << knob;
    }
  }
  EXPECT_TRUE(tunable_knobs(named_space("full")).size() > tunable_knobs(named_space("mist")).size());
  EXPECT_MENTIONS(tests::input_error([] { without_knob(named_space("full"), "luck"); }), "'luck' is not a knob");
}

TEST(Spaces, UnknownNamesAreRefusedWithTheKnownOnes) {
  EXPECT_MENTIONS(tests::input_error([] { named_space("alpa"); }), "megatron, deepspeed, aceso, mist, full");
}

TEST(Restrictions, FixWhatTheyName) {
  const SearchSpace space = restrict_space(named_space("full"),
                                           "tp=8,zero=3,stages=4,accumulation=16,micro_batch=32,checkpoint=all,"
                                           "schedule=1f1b,mode=in_place,offload=none,sequence_parallel=on");
  EXPECT_EQ(space.tensor_parallel, std::vector<int>{8});
  EXPECT_EQ(space.zero, std::vector<int>{3});
  EXPECT_EQ(space.stages, 4);
  EXPECT_EQ(space.accumulation, 16);
  EXPECT_EQ(space.micro_batch, 32);
  EXPECT_GE(space.max_micro_batch, 32);
  EXPECT_EQ(space.checkpointing, Checkpointing::kAll);
  EXPECT_EQ(space.schedules, std::vector<Schedule>{Schedule::kOneFOneB});
  EXPECT_EQ(space.modes, std::vector<cost::LayerMode>{cost::LayerMode::kInPlace});
  EXPECT_EQ(space.sequence_parallel, std::vector<bool>{true});
  for (const auto* list : {&space.weights, &space.gradients, &space.optimizer, &space.activations}) {
    EXPECT_EQ(*list, std::vector<double>{0});
  }
  EXPECT_EQ(restrict_space(named_space("full"), "mode=rerun_mlp").modes,
            std::vector<cost::LayerMode>{cost::LayerMode::kRerunMlp});
  EXPECT_EQ(restrict_space(named_space("full"), "pp=2").stages, 2);
  EXPECT_EQ(restrict_space(named_space("mist"), "").layer_window, 2);
}

TEST(Restrictions, MistakesAreNamed) {
  const auto message = [](const char* text) {
    return tests::input_error([&] { restrict_space(named_space("full"), text); });
  };
  EXPECT_MENTIONS(message("tp"), "restriction 'tp': expected key=value");
  EXPECT_MENTIONS(message("=3"), "expected key=value");
  EXPECT_MENTIONS(message("tp=2,,zero=1"), "restriction '': expected key=value");
  EXPECT_MENTIONS(message("tp=eight"), "tp=eight: expected a whole number of at least 1");
  EXPECT_MENTIONS(message("tp=0"), "tp=0");
  EXPECT_MENTIONS(message("tp=2x"), "tp=2x");
  EXPECT_MENTIONS(message("tp=99999999999"), "tp=99999999999");
  EXPECT_MENTIONS(message("zero=4"), "zero=4: expected 0 to 3");
  EXPECT_MENTIONS(message("zero=-1"), "zero=-1");
  EXPECT_MENTIONS(message("checkpoint=some"), "expected one of all, none, tuned");
  EXPECT_MENTIONS(message("schedule=gpipe"), "expected one of 1f1b, interleaved, zero_bubble");
  EXPECT_MENTIONS(message("mode=tempo"), "expected one of store, in_place, recompute, rerun_mlp, rerun");
  EXPECT_MENTIONS(message("sequence_parallel=yes"), "expected one of on, off");
  EXPECT_MENTIONS(message("offload=all"), "offload=all: expected none");
  EXPECT_MENTIONS(message("dp=4"), "restriction 'dp' is not one of tp, stages");
}

TEST(WhyNot, ComparesTheBestRestrictedPlan) {
  const SearchInput input = search_input("gpt-1.3b", "l4-1x4", 32);
  const SearchOptions options = quick_options();
  const SearchResult best = search(input, options);
  ASSERT_TRUE(best.feasible());
  const int other = best.ranked[0].stages[0].policy.tensor_parallel == 4 ? 1 : 4;
  const WhyNot why = why_not(input, options, best.ranked[0], fmt::format("tp={}", other));
  ASSERT_TRUE(why.result.feasible());
  for (const Stage& stage : why.result.ranked[0].stages) EXPECT_EQ(stage.policy.tensor_parallel, other);
  EXPECT_GE(found_s(why.result), found_s(best));
  EXPECT_MENTIONS(why.answer, fmt::format("with tp={} takes", other));
  EXPECT_MENTIONS(why.answer, fmt::format("{:.3f} s", found_s(why.result)));
  EXPECT_MENTIONS(why.answer, "slowest stage spends most on");
}

TEST(WhyNot, SaysWhereNothingFits) {
  const SearchInput input = search_input("gpt-2.7b", "l4-1x4", 32);
  const SearchResult best = search(input, quick_options());
  ASSERT_TRUE(best.feasible());
  const WhyNot memory =
      why_not(input, quick_options(), best.ranked[0], "tp=1,stages=1,offload=none,zero=1,micro_batch=8");
  EXPECT_FALSE(memory.result.feasible());
  EXPECT_MENTIONS(memory.answer, "no plan with tp=1,stages=1,offload=none,zero=1,micro_batch=8 fits");
  EXPECT_MENTIONS(memory.answer, "least-bad plan needs");
  const WhyNot shape = why_not(input, quick_options(), best.ranked[0], "stages=3");
  EXPECT_MENTIONS(shape.answer, "No stage shape satisfies it");
}

TEST(Infeasible, TheLeastBadPlanExceedsTheMemoryAndSaysWhere) {
  const SearchInput input = search_input("gpt-7b", "l4-1x2", 8);
  SearchOptions options = quick_options();
  options.space = named_space("megatron");
  const SearchResult result = search(input, options);
  EXPECT_FALSE(result.feasible());
  ASSERT_FALSE(result.least_bad.empty());
  const TrainPlan& plan = result.least_bad.front();
  const auto model = cost_model(input, plan);
  EXPECT_FALSE(fits(plan, *model));
  double peak = 0;
  for (const Stage& stage : plan.stages) {
    peak = std::max({peak, stage.predicted->memory_forward_bytes, stage.predicted->memory_backward_bytes});
  }
  EXPECT_GT(peak, model->device_bytes());
  const std::string text = infeasibility(input, plan);
  EXPECT_MENTIONS(text, fmt::format("needs {:.1f} GiB on a device of stage", peak / 1073741824.0));
  EXPECT_MENTIONS(text, fmt::format("the {:.1f} GiB there are", model->device_bytes() / 1073741824.0));
  EXPECT_MENTIONS(text, "Largest parts:");
  EXPECT_MENTIONS(text, "What would make it fit");
  // With that much memory it fits.
  SearchInput larger = input;
  larger.cluster.device_memory_bytes = static_cast<std::uint64_t>(peak) + 1;
  EXPECT_TRUE(search(larger, options).feasible());
}

// Devices that hold the model only if states are offloaded, and hosts too small for that.
TEST(Infeasible, HostMemoryIsNamedWhereItAloneIsShort) {
  SearchInput input = search_input("gpt-1.3b", "l4-1x1", 8);
  input.cluster.device_memory_bytes = 18'000'000'000;
  ASSERT_TRUE(search(input, quick_options()).feasible());
  input.cluster.host_memory_bytes = 5'000'000'000;
  const SearchResult result = search(input, quick_options());
  ASSERT_FALSE(result.feasible());
  ASSERT_FALSE(result.least_bad.empty());
  TrainPlan plan = result.least_bad.front();
  plan.stages[0].predicted->memory_forward_bytes = plan.stages[0].predicted->memory_backward_bytes = 16e9;
  plan.stages[0].predicted->host_bytes = 6.0 * 1073741824;
  const std::string text = infeasibility(input, plan);
  EXPECT_MENTIONS(text, "The least-bad plan needs 6.0 GiB of host memory a device; there are 4.7.");
  EXPECT_MENTIONS(text, "nodes of 6 GiB");
  EXPECT_EQ(text.find("on a device of stage"), std::string::npos) << text;
  plan.stages[0].predicted->memory_forward_bytes = 18.0 * 1073741824;
  EXPECT_MENTIONS(infeasibility(input, plan), "needs 18.0 GiB on a device of stage 0, 1.2 GiB more than the 16.8 GiB");
  EXPECT_MENTIONS(infeasibility(input, plan), "It also needs 6.0 GiB of host memory");
}

}  // namespace
}  // namespace gantry::plan
