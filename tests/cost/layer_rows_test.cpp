// The table of a layer's latency (docs/plan.md), row by row.
#include "gantry/cost/layer_rows.h"

#include <gtest/gtest.h>

namespace gantry::cost {
namespace {

// Every part is a power of two: a sum names its parts.
LayerWork distinct_work(int zero) {
  LayerWork work;
  work.forward_s = 1;
  work.backward_s = 2;
  work.optimizer_s = 4;
  work.tp_forward_s = 8;
  work.tp_backward_s = 16;
  work.gather_s = 32;
  work.reduce_s[0] = zero >= 2 ? 64 : 0;
  work.reduce_s[1] = zero >= 1 ? 64 : 128;  // reduce-scatter or all-reduce
  work.gather_each = zero >= 3;
  work.gather_first = zero >= 1;
  work.in_weights_s = 256;
  work.in_gradients_s = 512;
  work.in_optimizer_s = 1024;
  work.in_activations_s[0] = 2048;
  work.in_activations_s[1] = 4096;
  work.out_weights_s = 8192;
  work.out_gradients_s = 16384;
  work.out_optimizer_s = 32768;
  work.out_activations_s[0] = 65536;
  work.out_activations_s[1] = 131072;
  return work;
}

TEST(LayerRow, FirstForwardUpdatesTheWeights) {
  for (const int zero : {0, 1, 2, 3}) {
    const ChannelTimes row = layer_row(distinct_work(zero), Phase::kForwardFirst, false, false, false);
    EXPECT_EQ(row, (ChannelTimes{1 + 4, zero >= 1 ? 32. : 0, 1024 + 512, 32768 + 8192 + 65536})) << "ZeRO " << zero;
  }
}

TEST(LayerRow, OtherForwardsGatherShardedWeights) {
  for (const int zero : {0, 1, 2, 3}) {
    const ChannelTimes row = layer_row(distinct_work(zero), Phase::kForward, false, false, true);
    EXPECT_EQ(row, (ChannelTimes{1, zero == 3 ? 32. : 0, 256, 131072})) << "ZeRO " << zero;
  }
}

TEST(LayerRow, PlainLayersRerunWhatTheirModeDropped) {
  LayerWork work = distinct_work(1);
  work.rerun_s = .5;
  work.tp_rerun_s = .25;
  for (const Phase phase : {Phase::kBackward, Phase::kBackwardLast}) {
    EXPECT_EQ(layer_row(work, phase, false, false, false)[0], 2.5);
    EXPECT_EQ(layer_row(work, phase, false, false, true)[0], 2 + 1) << "its whole forward, and nothing twice";
    EXPECT_EQ(layer_serial_s(work, phase, false), 16.25);
    EXPECT_EQ(layer_serial_s(work, phase, true), 16 + 8);
  }
  EXPECT_EQ(layer_row(work, Phase::kForward, false, false, false)[0], 1);
  EXPECT_EQ(layer_serial_s(work, Phase::kForward, false), 8);
}

TEST(LayerRow, OtherBackwardsReduceShardedGradients) {
  for (const int zero : {0, 1, 2, 3}) {
    const double gather = zero == 3 ? 32 : 0;
    const double reduce = zero >= 2 ? 64 : 0;
    const LayerWork work = distinct_work(zero);
    EXPECT_EQ(layer_row(work, Phase::kBackward, false, false, false),
              (ChannelTimes{2, gather + reduce, 256 + 512 + 2048, 16384}));
    EXPECT_EQ(layer_row(work, Phase::kBackward, false, false, true),
              (ChannelTimes{2 + 1, gather + reduce, 256 + 512 + 4096, 16384}))
        << "a checkpointed layer runs forward again";
  }
}

TEST(LayerRow, TheLastBackwardReducesAllGradients) {
  for (const int zero : {0, 1, 2, 3}) {
    const double gather = zero == 3 ? 32 : 0;
    EXPECT_EQ(layer_row(distinct_work(zero), Phase::kBackwardLast, false, false, false),
              (ChannelTimes{2, gather + (zero >= 1 ? 64 : 128), 256 + 512 + 2048, 16384}));
  }
}

TEST(LayerRow, EdgeLayersLackWhatNoNeighbourHides) {
  const LayerWork work = distinct_work(3);
  // Forward: nothing to send out yet at the first, nothing to fetch at the last.
  EXPECT_EQ(layer_row(work, Phase::kForward, true, false, false), (ChannelTimes{1, 32, 256, 0}));
  EXPECT_EQ(layer_row(work, Phase::kForward, false, true, false), (ChannelTimes{1, 0, 0, 65536}));
  EXPECT_EQ(layer_row(work, Phase::kForwardFirst, true, true, false), (ChannelTimes{5, 0, 0, 0}));
  // Backward starts at the last: gathers for the next, reduces nothing yet; the first fetches nothing.
  EXPECT_EQ(layer_row(work, Phase::kBackward, false, true, false), (ChannelTimes{2, 32, 256 + 512 + 2048, 0}));
  EXPECT_EQ(layer_row(work, Phase::kBackwardLast, true, false, true), (ChannelTimes{3, 64, 0, 16384}));
  EXPECT_EQ(layer_row(work, Phase::kBackward, true, true, false), (ChannelTimes{2, 0, 0, 0}));
}

TEST(LayerRow, ExposedPartsHaveNoCompute) {
  const LayerWork work = distinct_work(3);
  EXPECT_EQ(exposed_before(work, Phase::kForwardFirst, false), (ChannelTimes{0, 32, 1024 + 512, 0}));
  EXPECT_EQ(exposed_before(work, Phase::kForward, false), (ChannelTimes{0, 32, 256, 0}));
  EXPECT_EQ(exposed_after(work, Phase::kForwardFirst, true), (ChannelTimes{0, 0, 0, 32768 + 8192 + 131072}));
  EXPECT_EQ(exposed_after(work, Phase::kForward, false), (ChannelTimes{0, 0, 0, 65536}));
  EXPECT_EQ(exposed_before(work, Phase::kBackward, true), (ChannelTimes{0, 32, 256 + 512 + 4096, 0}));
  EXPECT_EQ(exposed_after(work, Phase::kBackwardLast, false), (ChannelTimes{0, 64, 0, 16384}));
  EXPECT_EQ(exposed_after(distinct_work(1), Phase::kBackward, false), (ChannelTimes{0, 0, 0, 16384}));
  EXPECT_EQ(exposed_before(distinct_work(0), Phase::kForwardFirst, false), (ChannelTimes{0, 0, 1024 + 512, 0}));
}

TEST(LayerRow, TensorParallelCollectivesAreSerial) {
  const LayerWork work = distinct_work(1);
  EXPECT_EQ(layer_serial_s(work, Phase::kForward, true), 8);
  EXPECT_EQ(layer_serial_s(work, Phase::kForwardFirst, false), 8);
  EXPECT_EQ(layer_serial_s(work, Phase::kBackward, false), 16);
  EXPECT_EQ(layer_serial_s(work, Phase::kBackwardLast, true), 16 + 8);
}

TEST(CheckpointSplit, CountsEveryCheckpointedLayerOnce) {
  for (const bool last_first : {false, true}) {
    for (int layers = 2; layers <= 6; ++layers) {
      for (int count = 0; count <= layers; ++count) {
        const CheckpointSplit split = split_checkpoints(layers, count, last_first);
        EXPECT_EQ(int{split.first} + split.interior + int{split.last}, count) << layers << " layers";
        if (count > 0 && count < layers) {
          EXPECT_EQ(split.first, !last_first);
          EXPECT_EQ(split.last, last_first);
        }
      }
    }
    EXPECT_TRUE(split_checkpoints(1, 1, last_first).first);
    EXPECT_FALSE(split_checkpoints(1, 0, last_first).last);
  }
}

// Without interference a phase takes, for each layer, its slowest channel.
TEST(PhaseSeconds, SumTheLayersOfAStage) {
  const LayerWork work = distinct_work(3);
  const Factors none;
  for (const Phase phase : {Phase::kForwardFirst, Phase::kForward, Phase::kBackward, Phase::kBackwardLast}) {
    for (const bool last_first : {false, true}) {
      const PhaseSeconds seconds = phase_seconds(work, phase, none, last_first);
      for (int layers = 1; layers <= 5; ++layers) {
        for (int count = 0; count <= layers; ++count) {
          const CheckpointSplit split = split_checkpoints(layers, count, last_first);
          double sum = overlap_s(exposed_before(work, phase, split.last), none) +
                       overlap_s(exposed_after(work, phase, split.last), none);
          for (int i = 0; i < layers; ++i) {
            const bool first = i == 0, last = i == layers - 1;
            const bool kept = first ? split.first : last ? split.last : i <= split.interior;
            sum += overlap_s(layer_row(work, phase, first, last, kept), none) + layer_serial_s(work, phase, kept);
          }
          EXPECT_DOUBLE_EQ(seconds.total(layers, count), sum) << layers << " layers, " << count << " checkpointed";
        }
      }
    }
  }
}

}  // namespace
}  // namespace gantry::cost
