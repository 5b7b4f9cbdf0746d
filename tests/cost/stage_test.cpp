// Prices of whole stages: what each option and knob adds or saves.
#include "gantry/cost/stage.h"

#include <gtest/gtest.h>

#include "gantry/base/check.h"
#include "gantry/cost/collectives.h"
#include "gantry/cost/stage_parts.h"
#include "gantry/spec/named_models.h"

namespace gantry::cost {
namespace {

struct Scene {
  spec::ModelConfig model = spec::named_model("gpt-1.3b");
  Cluster cluster = load_cluster("l4-2x2");
  Profile profile = load_profile("l4");
  CostOptions options;
  CostModel make() const { return CostModel(model, 2048, profile, cluster, options); }
};

StageQuery query(Mesh mesh = {1, 2}, int tensor_parallel = 1) {
  StageQuery q;
  q.layers = 12;
  q.mesh = mesh;
  q.policy.tensor_parallel = tensor_parallel;
  q.policy.data_parallel = mesh.devices() / tensor_parallel;
  q.policy.micro_batch = 2;
  q.accumulation = 8;
  return q;
}

TEST(DataParallelGroup, SpansNodesFirst) {
  const auto group = [](Mesh mesh, int tensor_parallel) {
    Policy policy;
    policy.tensor_parallel = tensor_parallel;
    policy.data_parallel = mesh.devices() / tensor_parallel;
    const GroupShape shape = data_parallel_group(mesh, policy);
    return std::pair{shape.nodes, shape.per_node};
  };
  EXPECT_EQ(group({1, 8}, 1), (std::pair{1, 8}));
  EXPECT_EQ(group({1, 8}, 8), (std::pair{1, 1}));
  EXPECT_EQ(group({4, 8}, 1), (std::pair{4, 8}));
  EXPECT_EQ(group({4, 8}, 8), (std::pair{4, 1}));
  EXPECT_EQ(group({4, 8}, 4), (std::pair{4, 2}));
  EXPECT_EQ(group({3, 4}, 2), (std::pair{3, 2}));
}

TEST(StagePrice, BoundaryTensorsCostWhereStagesMeet) {
  Scene scene;
  StageQuery q = query({1, 1});
  const auto t_s = [&](bool first, bool last, int chunks = 1) {
    q.first = first;
    q.last = last;
    q.chunks = chunks;
    return scene.make().price(q).t_s;
  };
  const double only = t_s(true, true), first = t_s(true, false), last = t_s(false, true), middle = t_s(false, false);
  const double chunked = t_s(false, false, 3);
  scene.options.price_p2p = false;
  const double tensor_s = p2p_s(scene.profile, 2. * 2048 * 2048 * 2, false);
  EXPECT_EQ(only, t_s(true, true));
  EXPECT_NEAR(first - t_s(true, false), tensor_s, 1e-12);
  EXPECT_NEAR(last - t_s(false, true), tensor_s, 1e-12);
  EXPECT_NEAR(middle - t_s(false, false), 2 * tensor_s, 1e-12);
  EXPECT_NEAR(chunked - t_s(false, false), 6 * tensor_s, 1e-12) << "every chunk sends and receives";
}

TEST(StagePrice, SequenceParallelRanksSendTheirShareOfTheBoundary) {
  Scene scene;
  StageQuery q = query({1, 2}, 2);
  q.first = q.last = false;
  const auto boundary_s = [&] {
    scene.options.price_p2p = true;
    const double with = scene.make().price(q).t_s;
    scene.options.price_p2p = false;
    return with - scene.make().price(q).t_s;
  };
  const double bytes = 2. * 2048 * 2048 * 2;
  EXPECT_NEAR(boundary_s(), 2 * p2p_s(scene.profile, bytes, true), 1e-12) << "whole nodes talk across nodes";
  q.policy.sequence_parallel = true;
  EXPECT_NEAR(boundary_s(), 2 * p2p_s(scene.profile, bytes / 2, true), 1e-12);
}

TEST(StagePrice, SequenceParallelismSavesActivations) {
  const CostModel model = Scene().make();
  StageQuery q = query({1, 2}, 2);
  const StageCost whole = model.price(q);
  q.policy.sequence_parallel = true;
  EXPECT_LT(model.price(q).peak_bytes(), whole.peak_bytes());
}

TEST(StagePrice, OptimizerSecondsBelongToTheFirstForward) {
  Scene scene;
  const StageQuery q = query();
  const StageCost with = scene.make().price(q);
  scene.options.price_optimizer = false;
  const StageCost without = scene.make().price(q);
  EXPECT_EQ(with.t_s, without.t_s);
  EXPECT_GT(with.d_s, without.d_s);
  EXPECT_EQ(with.peak_bytes(), without.peak_bytes());
}

TEST(StagePrice, TiedEmbeddingsAreHeldOnceByOneStageAndReducedBetweenTwo) {
  Scene scene;
  scene.cluster = load_cluster("l4-1x2");
  StageQuery q = query();
  const StageCost untied = scene.make().price(q);
  q.last = false;
  const StageCost untied_first = scene.make().price(q);
  scene.model.tied_embeddings = true;
  const StageCost tied_first = scene.make().price(q);
  q.last = true;
  const StageCost tied = scene.make().price(q);
  EXPECT_LT(tied.d_s, untied.d_s) << "one set of weights to gather and reduce";
  // Weights, gradients and half of the optimizer states (ZeRO-1 over two), and the margin on top.
  const double table = 50304. * 2048 * (2 + 2 + 12 / 2.);
  EXPECT_NEAR((untied.peak_bytes() - tied.peak_bytes()) / table, 1, .01);
  EXPECT_EQ(tied_first.peak_bytes(), untied_first.peak_bytes());
  EXPECT_GT(tied_first.d_s, untied_first.d_s) << "first and last stage add their gradients up";
}

TEST(StagePrice, HostMemoryHoldsWhatIsOffloaded) {
  const CostModel model = Scene().make();
  StageQuery q = query();
  EXPECT_EQ(model.price(q).host_bytes, 0);
  q.policy.optimizer_offload = .5;
  const double block = model.sections().at({2, 1, LayerMode::kStore, false}).block.elements;
  EXPECT_DOUBLE_EQ(model.price(q).host_bytes, 12 * block * 12 / 2 * .5);
  q.policy.optimizer_offload = 0;
  q.policy.activation_offload = 1;
  q.warmup = 3;
  const double saved = model.sections().at({2, 1, LayerMode::kStore, false}).block.saved;
  EXPECT_DOUBLE_EQ(model.price(q).host_bytes, 12 * saved * 4);
}

TEST(StagePrice, ChunkedLossLowersThePeakOfTheHead) {
  Scene scene;
  StageQuery q = query();
  q.policy.micro_batch = 8;
  q.checkpointed = q.layers;
  const StageCost whole = scene.make().price(q);
  scene.options.chunked_loss = true;
  const StageCost chunked = scene.make().price(q);
  EXPECT_LT(chunked.memory_backward_bytes, whole.memory_backward_bytes - 1e9);
}

TEST(StagePrice, LayerModesKeepLessForBackward) {
  for (const bool flash : {true, false}) {
    Scene scene;
    scene.options.flash_attention = flash;
    const CostModel model = scene.make();
    const auto saved = [&](LayerMode mode) { return model.sections().at({2, 1, mode, false}).block.saved; };
    EXPECT_LT(saved(LayerMode::kInPlace), saved(LayerMode::kStore));
    EXPECT_LT(saved(LayerMode::kRecompute), saved(LayerMode::kStore));
    const auto& stock = model.sections().at({2, 1, LayerMode::kStore, false}).block;
    const auto& again = model.sections().at({2, 1, LayerMode::kRecompute, false}).block;
    EXPECT_GE(again.backward_s, stock.backward_s) << "made again in backward";
    EXPECT_EQ(again.saved_checkpointed, stock.saved_checkpointed);
  }
}

TEST(StagePrice, RerunKeepsLessForTheShareOfItsProducts) {
  const CostModel model = Scene().make();
  const auto block = [&](LayerMode mode) { return model.sections().at({2, 1, mode, false}).block; };
  const Section plain = block(LayerMode::kRecompute), mlp = block(LayerMode::kRerunMlp),
                both = block(LayerMode::kRerun);
  // fp16, without dropout: 20, 12 and 6 bytes an element of a hidden state, and statistics.
  const double unit = 2. * 2048 * 2048;
  const double statistics = 2. * 2048 * 2 * 4;
  const double log_sums = 2. * 2048 * 16 * 4;
  EXPECT_EQ(plain.saved, 20 * unit + statistics + log_sums);
  EXPECT_EQ(mlp.saved, 12 * unit + statistics + log_sums);
  EXPECT_EQ(both.saved, 6 * unit + statistics);
  EXPECT_EQ(plain.rerun_s, 0);
  EXPECT_GT(mlp.rerun_s, plain.forward_s * 8 / 24 * .7);
  EXPECT_LT(mlp.rerun_s, plain.forward_s * 8 / 24 * 1.2);
  EXPECT_GT(both.rerun_s, mlp.rerun_s + plain.forward_s * 6 / 24 * .7);
  EXPECT_LT(both.rerun_s, plain.forward_s * .8) << "cheaper than running all of the forward again";
  for (const Section& section : {mlp, both}) {
    EXPECT_EQ(section.forward_s, plain.forward_s);
    EXPECT_EQ(section.backward_s, plain.backward_s);
    EXPECT_NEAR(section.peak_backward + section.checkpointed_peak_more,
                plain.peak_backward + plain.checkpointed_peak_more, 1);
    EXPECT_LE(section.peak_backward, plain.peak_backward);
  }
}

TEST(StagePrice, CheckpointedLayersOfARerunModeAreThoseOfRecompute) {
  const CostModel model = Scene().make();
  StageQuery q = query();
  const auto price = [&](LayerMode mode, int checkpointed) {
    q.policy.mode = mode;
    q.checkpointed = checkpointed;
    return model.price(q);
  };
  for (const LayerMode mode : {LayerMode::kRerunMlp, LayerMode::kRerun}) {
    EXPECT_EQ(price(mode, 12).t_s, price(LayerMode::kRecompute, 12).t_s);
    EXPECT_NEAR(price(mode, 12).peak_bytes(), price(LayerMode::kRecompute, 12).peak_bytes(), 10);
    EXPECT_GT(price(mode, 0).t_s, price(LayerMode::kRecompute, 0).t_s);
    EXPECT_LT(price(mode, 0).t_s, price(mode, 6).t_s);
    EXPECT_LT(price(mode, 6).t_s, price(mode, 12).t_s);
    EXPECT_LT(price(mode, 0).peak_bytes(), price(LayerMode::kRecompute, 0).peak_bytes());
  }
  q.checkpointed = 5;
  q.policy.mode = LayerMode::kRerun;
  const double rerun_s = model.sections().at({2, 1, LayerMode::kRerun, false}).block.rerun_s;
  const double forward_s = model.sections().at({2, 1, LayerMode::kRerun, false}).block.forward_s;
  double sum = 0;
  for (const CostTerm& term : model.explain_time(q)) {
    sum += term.value;
    if (term.name == "recomputation") {
      EXPECT_DOUBLE_EQ(term.value, 7 * rerun_s + 5 * forward_s);
    }
  }
  EXPECT_NEAR(sum, model.price(q).t_s, 1e-12);
  double repeated = 0;
  for (const LayerStep& step : model.phases(q).backward) repeated += step.recompute_s;
  EXPECT_NEAR(repeated, 7 * rerun_s + 5 * forward_s, 1e-12);
}

TEST(StagePrice, RerunOfAttentionNeedsFlashAttention) {
  Scene scene;
  scene.options.flash_attention = false;
  const CostModel model = scene.make();
  StageQuery q = query();
  q.policy.mode = LayerMode::kRerunMlp;
  EXPECT_GT(model.price(q).t_s, 0);
  q.policy.mode = LayerMode::kRerun;
  EXPECT_THROW(model.price(q), base::InputError);
}

TEST(StagePrice, SharedHostLinksSlowCopiesDown) {
  Scene scene;
  StageQuery q = query();
  q.policy.optimizer_offload = 1;
  const double alone = scene.make().price(q).d_s;
  scene.cluster.devices_per_host_link = 2;
  EXPECT_GT(scene.make().price(q).d_s, alone * 1.5);
}

TEST(StagePrice, OneMicroBatchPutsFirstAndLastIntoT) {
  const CostModel model = Scene().make();
  StageQuery q = query();
  q.first = q.last = false;
  q.policy.zero = 1;
  q.accumulation = 1;
  const StageCost cost = model.price(q);
  EXPECT_EQ(cost.d_s, 0);
  q.accumulation = 2;
  const StageCost two = model.price(q);
  // Adding gradients up is the difference.
  const double accumulate = model.sections().at({2, 1, LayerMode::kStore, false}).block.accumulate_s;
  EXPECT_NEAR(two.t_s + two.d_s - cost.t_s, 12 * accumulate / 2, .1 * 12 * accumulate);
}

TEST(StagePrice, MoreLayersOrMicroBatchesNeverCostLess) {
  const CostModel model = Scene().make();
  StageQuery q = query();
  StageCost before;
  for (q.layers = 1; q.layers <= 24; ++q.layers) {
    const StageCost cost = model.price(q);
    EXPECT_GT(cost.t_s, before.t_s);
    EXPECT_GT(cost.peak_bytes(), before.peak_bytes());
    before = cost;
  }
  q.layers = 24;
  for (q.checkpointed = 1; q.checkpointed <= 24; ++q.checkpointed) {
    const StageCost cost = model.price(q);
    EXPECT_GT(cost.t_s, before.t_s) << q.checkpointed;
    EXPECT_LE(cost.peak_bytes(), before.peak_bytes()) << q.checkpointed;
    before = cost;
  }
  q.checkpointed = 0;
  before = {};
  for (q.warmup = 0; q.warmup < 4; ++q.warmup) {
    EXPECT_GT(model.price(q).peak_bytes(), before.peak_bytes());
    before = model.price(q);
  }
}

TEST(CostModelLimits, TensorParallelDegreesDivideTheModelAndANode) {
  Scene scene;
  scene.cluster = load_cluster("l4-1x8");
  const CostModel model = scene.make();
  EXPECT_TRUE(model.divisible(1));
  EXPECT_TRUE(model.divisible(8));
  EXPECT_FALSE(model.divisible(16)) << "a node has 8 devices";
  EXPECT_FALSE(model.divisible(3)) << "16 heads";
}

}  // namespace
}  // namespace gantry::cost
