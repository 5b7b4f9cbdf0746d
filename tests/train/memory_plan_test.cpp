#include "gantry/train/memory_plan.h"

#include <ATen/ATen.h>

#include "tests/test_support.h"

namespace gantry::train {
namespace {

using layers::LayerMemory;
using layers::MemoryMode;

// Marked by their attention's mode, which nothing here looks into.
ModeCost cost(MemoryMode mark, std::int64_t bytes, double milliseconds) {
  return {{mark, MemoryMode::kRecompute, MemoryMode::kInPlace}, bytes, milliseconds};
}

const std::vector<ModeCost> kCosts = {cost(MemoryMode::kRerun, 20, 15), cost(MemoryMode::kStore, 200, 11),
                                      cost(MemoryMode::kInPlace, 100, 10), cost(MemoryMode::kRecompute, 90, 14.9),
                                      cost(MemoryMode::kInt8, 50, 12)};

// 1000 bytes and what the layers keep.
std::uint64_t peak_of(const std::vector<LayerMemory>& layers) {
  std::uint64_t total = 1000;
  for (const LayerMemory& layer : layers) {
    for (const ModeCost& known : kCosts) {
      if (known.memory == layer) total += static_cast<std::uint64_t>(known.saved_bytes);
    }
  }
  return total;
}

TEST(ParetoModes, KeepsTheLowerConvexHullFastestFirst) {
  const auto hull = pareto_modes(kCosts);
  ASSERT_EQ(hull.size(), 3u);
  EXPECT_EQ(hull[0].saved_bytes, 100) << "kStore is slower and larger";
  EXPECT_EQ(hull[1].saved_bytes, 50) << "(14.9, 90) lies above the hull";
  EXPECT_EQ(hull[2].saved_bytes, 20);
}

TEST(PlanMemory, TakesNoMoreThanTheBudgetNeeds) {
  // Four layers: 1400 at the start, 1200 after four moves of 50, 1080 after four more of 30.
  const auto moved = [](std::uint64_t budget) { return plan_memory(kCosts, 4, budget, peak_of).used; };
  EXPECT_EQ(moved(5000), (std::vector<std::int64_t>{4, 0, 0}));
  EXPECT_EQ(moved(1400), (std::vector<std::int64_t>{4, 0, 0}));
  EXPECT_EQ(moved(1399), (std::vector<std::int64_t>{3, 1, 0}));
  EXPECT_EQ(moved(1200), (std::vector<std::int64_t>{0, 4, 0}));
  EXPECT_EQ(moved(1199), (std::vector<std::int64_t>{0, 3, 1}));
  EXPECT_EQ(moved(1080), (std::vector<std::int64_t>{0, 0, 4}));
}

TEST(PlanMemory, GoesOnUntilTheMeasuredPeakFits) {
  // A peak that falls by less than the layers' bytes promise.
  const auto slow = [](const std::vector<LayerMemory>& layers) { return 1000 + (peak_of(layers) - 1000) / 2 + 100; };
  const MemoryPlan plan = plan_memory(kCosts, 4, 1210, slow);
  EXPECT_LE(plan.peak_bytes, 1210u);
  EXPECT_EQ(plan.peak_bytes, slow(plan.layers));
}

TEST(PlanMemory, TellsTheLeastPeakWhereNothingFits) {
  const std::string message = tests::message_of<base::Error>([] { plan_memory(kCosts, 4, 1000, peak_of); });
  EXPECT_NE(message.find("1.1 KiB"), std::string::npos) << message;  // 1080 bytes
  EXPECT_NE(message.find("Lower the batch"), std::string::npos) << message;
}

TEST(MeasureModes, CountsBytesAndTimeOfEachExactMode) {
  spec::ModelConfig config;
  config.family = spec::Family::kGpt2;
  config.hidden_size = 64;
  config.num_layers = 3;
  config.num_heads = config.num_kv_heads = 4;
  config.head_dim = 16;
  config.intermediate_size = 256;
  config.max_positions = 64;
  config.activation = spec::Activation::kGeluTanh;
  const auto costs = measure_modes(config, 2, 32, at::kFloat);
  const auto bytes_of = [&](const LayerMemory& memory) {
    for (const ModeCost& known : costs) {
      if (known.memory == memory) return known.saved_bytes;
    }
    return std::int64_t{-1};
  };
  for (const ModeCost& known : costs) EXPECT_GT(known.milliseconds, 0);
  // Rerunning the MLP drops the activation's input, 4 [B, S, H]; rerunning attention Q, K, V and log-sums.
  const std::int64_t states = 2 * 32 * 64 * 4;
  const std::int64_t base_bytes = bytes_of({MemoryMode::kRecompute, MemoryMode::kRecompute, MemoryMode::kInPlace});
  EXPECT_EQ(bytes_of({MemoryMode::kRecompute, MemoryMode::kRerun, MemoryMode::kInPlace}), base_bytes - 4 * states);
  EXPECT_EQ(bytes_of({MemoryMode::kRerun, MemoryMode::kRecompute, MemoryMode::kInPlace}),
            base_bytes - 3 * states - 4 * 2 * 32 * 4);
}

TEST(MemoryModes, SurviveJson) {
  const std::vector<LayerMemory> layers = {{}, {MemoryMode::kRerun, MemoryMode::kInt8, MemoryMode::kStore}};
  EXPECT_EQ(memory_from_json(base::Json::parse(memory_to_json(layers).dump()), "test"), layers);
  const std::string message = tests::input_error([] { memory_from_json(base::Json::parse(R"([{"mlp": 3}])"), "F"); });
  EXPECT_NE(message.find("F"), std::string::npos) << message;
}

}  // namespace
}  // namespace gantry::train
