#include "gantry/train/memory_plan.h"

#include <ATen/ATen.h>

#include "gantry/train/out_of_memory.h"
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

TEST(FitMemory, TakesNoMoreThanTheBudgetNeeds) {
  // Four layers: 1400 at the start, 1200 after four moves of 50, 1080 after four more of 30.
  const auto moved = [](std::uint64_t budget) { return fit_memory(kCosts, 4, {budget}, peak_of).used; };
  EXPECT_EQ(moved(5000), (std::vector<std::int64_t>{4, 0, 0}));
  EXPECT_EQ(moved(1400), (std::vector<std::int64_t>{4, 0, 0}));
  EXPECT_EQ(moved(1399), (std::vector<std::int64_t>{3, 1, 0}));
  EXPECT_EQ(moved(1200), (std::vector<std::int64_t>{0, 4, 0}));
  EXPECT_EQ(moved(1199), (std::vector<std::int64_t>{0, 3, 1}));
  EXPECT_EQ(moved(1080), (std::vector<std::int64_t>{0, 0, 4}));
}

TEST(FitMemory, GoesOnUntilTheMeasuredPeakFits) {
  // A peak that falls by less than the layers' bytes promise.
  const auto slow = [](const std::vector<LayerMemory>& layers) { return 1000 + (peak_of(layers) - 1000) / 2 + 100; };
  const MemoryPlan plan = fit_memory(kCosts, 4, {1210}, slow);
  EXPECT_TRUE(plan.fits);
  EXPECT_LE(plan.peak_bytes, 1210u);
  EXPECT_EQ(plan.peak_bytes, slow(plan.layers));
}

TEST(FitMemory, TellsTheLeastPeakWhereNothingFits) {
  const MemoryPlan plan = fit_memory(kCosts, 4, {1000}, peak_of);
  EXPECT_FALSE(plan.fits);
  EXPECT_EQ(plan.peak_bytes, 1080u);
  EXPECT_EQ(plan.used, (std::vector<std::int64_t>{0, 0, 4}));
  const std::string message =
      tests::message_of<base::InfeasibleError>([&] { require_fit(plan, 1000, "Lower the batch"); });
  EXPECT_MENTIONS(message,
                  "the least peak measured is 1.1 KiB, the budget is 1000 B. Lower the batch, or allow 1.1 KiB");
  require_fit(fit_memory(kCosts, 4, {2000}, peak_of), 2000, "");
}

TEST(FitMemory, DoesNotRunWhatKeepsMoreThanTheBudgetLeaves) {
  int runs = 0;
  const auto counted = [&](const std::vector<LayerMemory>& layers) {
    ++runs;
    return peak_of(layers);
  };
  // 1000 bytes at rest: 400, 200 and 80 bytes of the uniform choices come on top, of which nine tenths are certain.
  const MemoryPlan some = fit_memory(kCosts, 4, {.bytes = 1200, .rest_bytes = 1000}, counted);
  EXPECT_EQ(some.used, (std::vector<std::int64_t>{0, 4, 0}));
  EXPECT_EQ(runs, 1) << "that three moves are too few is certain";
  runs = 0;
  const MemoryPlan none = fit_memory(kCosts, 4, {.bytes = 1050, .rest_bytes = 1000}, counted);
  EXPECT_EQ(runs, 0);
  EXPECT_FALSE(none.fits || none.peak_bytes);
  EXPECT_EQ(none.least_bytes, 1072u);
  EXPECT_EQ(none.used, (std::vector<std::int64_t>{0, 0, 4}));
  EXPECT_MENTIONS(tests::message_of<base::InfeasibleError>([&] { require_fit(none, 1050, "Do this"); }),
                  "a step takes at least 1.0 KiB, the budget is 1.0 KiB. Do this, or allow more");
}

TEST(FitMemory, MemoryThatRunsOutIsAnAnswer) {
  // Above 1200 bytes this machine has none.
  const auto small = [](const std::vector<LayerMemory>& layers) -> std::optional<std::uint64_t> {
    const std::uint64_t peak = peak_of(layers);
    return peak <= 1200 ? std::optional(peak) : std::nullopt;
  };
  const MemoryPlan plan = fit_memory(kCosts, 4, {5000}, small);
  EXPECT_TRUE(plan.fits);
  EXPECT_EQ(plan.used, (std::vector<std::int64_t>{0, 4, 0}));
  const auto never = [](const std::vector<LayerMemory>&) -> std::optional<std::uint64_t> { return std::nullopt; };
  EXPECT_FALSE(fit_memory(kCosts, 4, {5000}, never).fits);
}

TEST(UnlessOutOfMemory, PassesValuesAndOtherErrors) {
  EXPECT_EQ(unless_out_of_memory([] { return 3; }), 3);
  EXPECT_FALSE(unless_out_of_memory([] { return at::empty({std::int64_t{1} << 50}); }).has_value());
  EXPECT_FALSE(unless_out_of_memory([]() -> int { throw std::bad_alloc(); }).has_value());
  EXPECT_THROW(unless_out_of_memory([] { return at::zeros({2, 3}).view({5}); }), c10::Error);
  EXPECT_THROW(unless_out_of_memory([]() -> int { base::fail("other"); }), base::Error);
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
