// Memory of a stage, term by term, with sizes that name their parts.
#include "gantry/cost/stage_memory.h"

#include <gtest/gtest.h>

namespace gantry::cost {
namespace {

Section section(double elements) {
  Section result;
  result.elements = elements;
  return result;
}

Sections sections() {
  Sections s{section(1000), section(100), section(2000)};
  s.pre.saved = 7;
  s.block.saved_checkpointed = 10;
  s.block.saved = 50;
  s.block.peak_forward = 80;
  s.block.peak_backward = 130;
  s.block.output = 10;
  s.block.scores = 3;
  s.post.peak_forward = 300;
  s.post.peak_backward = 500;
  s.post.output = 4;
  return s;
}

Policy policy(int zero, int data_parallel = 4) {
  Policy p;
  p.zero = zero;
  p.data_parallel = data_parallel;
  return p;
}

TEST(StageMemory, ZeroLevelsShardOptimizerGradientsAndWeights) {
  for (const int zero : {0, 1, 2, 3}) {
    const StageMemory m = stage_memory(sections(), policy(zero), {});
    EXPECT_EQ(m.resident.optimizer, zero >= 1 ? 300 : 1200) << "12 bytes an element";
    EXPECT_EQ(m.resident.gradients, zero >= 2 ? 50 : 200);
    EXPECT_EQ(m.resident.weights, zero >= 3 ? 50 : 200);
    EXPECT_EQ(m.buffers, 2 * 200 * ((zero >= 2 ? 1 : 0) + (zero >= 3 ? 1 : 0))) << "two full layers a ring";
    // Embedding and head shard the optimizer at most.
    EXPECT_EQ(m.pre_states, 1000 * (4 + (zero >= 1 ? 3. : 12.)));
    EXPECT_EQ(m.post_states, 2000 * (4 + (zero >= 1 ? 3. : 12.)));
  }
}

TEST(StageMemory, CheckpointedLayersMayPeakAboveThoseThatRerun) {
  Sections s = sections();
  const auto backward = [&](int checkpointed) {
    return stage_memory(s, policy(1), {}).peaks(4, checkpointed, 0, false, false).backward;
  };
  const double none = backward(0), one = backward(1), two = backward(2), all = backward(4);
  s.block.checkpointed_peak_more = 100;
  EXPECT_EQ(backward(0), none);
  EXPECT_EQ(backward(1), one) << "it runs when the three plain layers of 50 are done";
  // Beside the second of two runs one checkpointed layer; beside a plain one of two, another and both inputs.
  EXPECT_EQ(backward(2), two + (10 + 100) - (10 + 10 + 50));
  EXPECT_EQ(backward(4), all + 100);
}

TEST(StageMemory, OffloadMovesAShareToTheHost) {
  Policy p = policy(1);
  p.weight_offload = .25;
  p.gradient_offload = .5;
  p.optimizer_offload = .75;
  const StageMemory m = stage_memory(sections(), p, {});
  EXPECT_EQ(m.resident.weights, 150);
  EXPECT_EQ(m.resident.gradients, 100);
  EXPECT_EQ(m.resident.optimizer, 75);
  EXPECT_EQ(m.offloaded.weights, 50);
  EXPECT_EQ(m.offloaded.gradients, 100);
  EXPECT_EQ(m.offloaded.optimizer, 225);
  EXPECT_EQ(m.optimizer_staged, 300) << "of the layer being updated, whole";
  EXPECT_EQ(m.buffers, 2 * 200 + 2 * 200) << "what is offloaded needs rings, too";
  EXPECT_EQ(m.host_bytes(3, 1, 2), 3 * (50 + 100 + 225));
}

TEST(StageMemory, ActivationsOfAllMicroBatchesInFlightAreOffloaded) {
  Policy p = policy(1);
  p.activation_offload = .5;
  const StageMemory m = stage_memory(sections(), p, {});
  EXPECT_EQ(m.saved[0], 25);
  EXPECT_EQ(m.saved[1], 5);
  EXPECT_EQ(m.host_bytes(3, 1, 2), 3 * (10 + 2 * 50) * .5) << "three micro-batches: two in flight and the running one";
}

TEST(StageMemory, MiddleStage) {
  const StageMemory m = stage_memory(sections(), policy(1), {});
  // 4 layers, 1 checkpointed, 2 micro-batches in flight.
  const double micro_batch = 10 + 3 * 50;
  const auto peaks = m.peaks(4, 1, 2, false, false);
  EXPECT_EQ(peaks.forward, 4 * 400 + 300 + 3 * 300 + 2 * micro_batch + (micro_batch - 50) + 80 + 2 * 2 * 10);
  EXPECT_EQ(peaks.backward, 4 * 400 + 4 * 300 + 2 * micro_batch + (micro_batch - 50) + 130 + 2 * 3 * 10);
}

TEST(StageMemory, AllLayersCheckpointedKeepTheInputsOfTheOthers) {
  const StageMemory m = stage_memory(sections(), policy(0), {});
  const auto peaks = m.peaks(4, 4, 0, false, false);
  EXPECT_EQ(peaks.forward, 4 * 400 + 1200 + 3 * 1200 + 3 * 10 + 80);
  EXPECT_EQ(peaks.backward, 4 * 400 + 4 * 1200 + 3 * 10 + 130 + 2 * 10);
}

TEST(StageMemory, OffloadedActivationsOfTheRunningLayerAreRestored) {
  Policy p = policy(1);
  p.activation_offload = .5;
  const StageMemory m = stage_memory(sections(), p, {});
  const StageMemory without = stage_memory(sections(), policy(1), {});
  // 4 layers, none checkpointed: half of three others, half of the running one comes back.
  EXPECT_EQ(without.peaks(4, 0, 0, false, false).forward - m.peaks(4, 0, 0, false, false).forward, 3 * 25 - 25);
  // At least all but one checkpointed: the restored layer keeps its input only.
  EXPECT_EQ(without.peaks(4, 3, 0, false, false).forward - m.peaks(4, 3, 0, false, false).forward, 3 * 5 - 5);
}

TEST(StageMemory, TheFirstStageHoldsTheEmbedding) {
  const StageMemory m = stage_memory(sections(), policy(1), {});
  const auto middle = m.peaks(4, 1, 2, false, false);
  const auto first = m.peaks(4, 1, 2, true, false);
  EXPECT_EQ(first.forward - middle.forward, 7000 + 3 * 7);
  EXPECT_EQ(first.backward - middle.backward, 7000 + 3 * 7);
}

TEST(StageMemory, TheLastStagePeaksInALayerOrInTheHead) {
  Sections s = sections();
  const double states = 2 * 400, optimizer = 2 * 300, head_states = 14000;
  const auto in_head = stage_memory(s, policy(1), {}).peaks(2, 0, 0, false, true);
  EXPECT_EQ(in_head.forward, states + optimizer + head_states + 2 * 50 + 300);
  EXPECT_EQ(in_head.backward, states + optimizer + head_states + 2 * 50 + 500 + 4);
  s.block.peak_forward = 1080;
  s.block.peak_backward = 1130;
  const auto in_layer = stage_memory(s, policy(1), {}).peaks(2, 0, 0, false, true);
  EXPECT_EQ(in_layer.forward, states + optimizer + head_states + 50 + 1080);
  EXPECT_EQ(in_layer.backward, states + optimizer + head_states + 50 + 1130 + 2 * 10 - 10 + 4);
}

TEST(StageMemory, OneStageSharesTiedEmbeddings) {
  StageMemory m = stage_memory(sections(), policy(1), {});
  const auto own = m.peaks(2, 0, 0, true, true);
  m.shared_states = 5000;
  EXPECT_EQ(own.forward - m.peaks(2, 0, 0, true, true).forward, 5000);
  EXPECT_EQ(own.backward - m.peaks(2, 0, 0, true, true).backward, 5000);
  EXPECT_EQ(stage_memory(sections(), policy(1), {}).peaks(2, 0, 0, false, true).forward,
            m.peaks(2, 0, 0, false, true).forward)
      << "stages of a pipeline hold a copy each";
}

TEST(StageMemory, WeightsInFp32AreTheirOwnMasters) {
  CostOptions options;
  options.dtype = "fp32";
  const StageMemory m = stage_memory(sections(), policy(0), options);
  EXPECT_EQ(m.resident.weights, 400);
  EXPECT_EQ(m.resident.gradients, 400);
  EXPECT_EQ(m.resident.optimizer, 800);
}

TEST(StageMemory, ReleasedCodesReadings) {
  const StageMemory m = stage_memory(sections(), policy(3), CostOptions::artifact());
  EXPECT_EQ(m.buffers, 2 * 4000 * 2) << "rings of the largest section";
  EXPECT_EQ(m.scores, 3);
  EXPECT_EQ(m.post_peak_backward, 300);
  EXPECT_EQ(stage_memory(sections(), policy(3), {}).scores, 0);
}

TEST(MemoryMargin, AddsAShareForEveryKnob) {
  spec::ModelConfig model;
  model.hidden_size = 6144;
  const auto margin = [&](const Policy& p, bool first = true, bool last = true, std::int64_t sequence = 2048) {
    return memory_margin(model, sequence, p, first, last, {});
  };
  const double base = 1 + .005 * 2;
  EXPECT_DOUBLE_EQ(margin({}), base);
  EXPECT_DOUBLE_EQ(margin({}, true, true, 4096), base + .045);
  EXPECT_DOUBLE_EQ(margin({}, true, true, 1'000'000), base + .135) << "held beyond what it was made from";
  EXPECT_DOUBLE_EQ(margin({}, true, true, 512), base) << "short sequences earn nothing";
  EXPECT_DOUBLE_EQ(margin({.weight_offload = .1}), base + .025);
  EXPECT_DOUBLE_EQ(margin({.gradient_offload = .1}), base + .025);
  EXPECT_DOUBLE_EQ(margin({.optimizer_offload = .1}), base + .03);
  EXPECT_DOUBLE_EQ(margin({.activation_offload = .1}), base + .04);
  EXPECT_DOUBLE_EQ(margin({.zero = 2}), base + .025);
  EXPECT_DOUBLE_EQ(margin({.zero = 3}), base + .05);
  EXPECT_DOUBLE_EQ(margin({.tensor_parallel = 2}), base + .04);
  EXPECT_DOUBLE_EQ(margin({.micro_batch = 3}), base);
  EXPECT_DOUBLE_EQ(margin({.micro_batch = 4}), base + .01);
  EXPECT_DOUBLE_EQ(margin({}, true, false), base + .025);
  EXPECT_DOUBLE_EQ(margin({}, false, true), base + .025);
  EXPECT_DOUBLE_EQ(margin({}, false, false), base + .035);
  EXPECT_EQ(memory_margin(model, 4096, {}, false, false, {.memory_margin = false}), 1);
}

}  // namespace
}  // namespace gantry::cost
