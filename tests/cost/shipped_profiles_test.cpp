#include "gantry/cost/shipped_profiles.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "gantry/base/env.h"
#include "gantry/base/file.h"
#include "gantry/base/json.h"
#include "gantry/cost/profile.h"

namespace gantry::cost {
namespace {

constexpr double kGib = 1024.0 * 1024.0 * 1024.0;

const Link& collective(const Profile& profile, int per_node, int nodes) {
  for (const CollectiveLink& link : profile.collectives) {
    if (link.per_node == per_node && link.nodes == nodes) return link.link;
  }
  throw std::runtime_error("no such link");
}

TEST(ShippedProfiles, AreTheFilesOfTheSourceTree) {
  std::set<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(GANTRY_SOURCE_DIR "/profiles")) {
    files.insert(entry.path().stem().string());
  }
  const auto names = shipped_profile_names();
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()), files);
  for (const ShippedProfile& shipped : shipped_profiles()) {
    EXPECT_EQ(shipped.json,
              base::read_text_file(std::string(GANTRY_SOURCE_DIR "/profiles/") + std::string(shipped.name) + ".json"));
  }
}

TEST(ShippedProfiles, AreValidAndSayWhereTheyCameFrom) {
  for (const std::string& name : shipped_profile_names()) {
    SCOPED_TRACE(name);
    const Profile profile = load_profile(name);
    EXPECT_EQ(profile.name, name);
    EXPECT_GT(profile.source.size(), 40u);
    EXPECT_GT(profile.matrix_flops_per_s.at("fp16"), 1e14);
    EXPECT_GT(profile.memory_bytes_per_s, 1e11);
    EXPECT_GT(collective(profile, 8, 1).gb_per_s, collective(profile, 2, 1).gb_per_s);
    const bool data_sheet = profile.source.starts_with("NVIDIA's data sheet");
    EXPECT_EQ(profile.copy_in.provenance, data_sheet ? Provenance::kDataSheet : Provenance::kFitted);
    EXPECT_EQ(profile.operators.empty(), data_sheet || name.starts_with("a100"));
    EXPECT_FALSE(profile.interference.empty());
    EXPECT_EQ(profile_to_json(profile_from_json(profile_to_json(profile), name)), profile_to_json(profile));
  }
}

TEST(ShippedProfiles, MemoryIsWhatAFrameworkCanUse) {
  EXPECT_EQ(load_profile("l4-mist").device_memory_bytes, static_cast<std::uint64_t>(22.488 * kGib));
  EXPECT_EQ(load_profile("a100-mist").device_memory_bytes, static_cast<std::uint64_t>(40 * kGib));
  EXPECT_LT(static_cast<double>(load_profile("h100").device_memory_bytes), 79.1 * kGib);
}

TEST(ShippedProfiles, L4MistHasThePublishedLinksAndFactors) {
  const Profile profile = load_profile("l4-mist");
  EXPECT_EQ(profile.collectives.size(), 11u);
  EXPECT_EQ(collective(profile, 2, 1).gb_per_s, 2.964);
  EXPECT_EQ(collective(profile, 2, 1).latency_s, 0.0001);
  EXPECT_EQ(collective(profile, 1, 4).latency_s, 0.0102);
  EXPECT_EQ(profile.copy_out.gb_per_s, 6.1252);
  const Factors& factors = profile.factors(2, 1);
  EXPECT_EQ(factors.f[0], 18.9356);  // CGHO, compute
  EXPECT_EQ(factors.f[16], 1.1676);  // CG, compute
  EXPECT_EQ(factors.f[27], 1.0974);  // HO, copy-out
  EXPECT_EQ(load_profile("l4-mist-overlap").factors(8, 1).f[27], 1.9656);
  EXPECT_EQ(load_profile("a100-mist").factors(8, 4).f[0], 1.307);
}

TEST(ShippedProfiles, OwnFitsHaveASetForEveryMeasuredGroupShape) {
  struct Row {
    const char* name;
    std::size_t sets;
    double shared_residual, worst_residual;
  };
  for (const Row& row : {Row{"l4", 4, 0.02, 0.013}, Row{"a100-40g", 12, 0.075, 0.03}}) {
    SCOPED_TRACE(row.name);
    const Profile profile = load_profile(row.name);
    ASSERT_EQ(profile.interference.size(), row.sets);
    for (const ShapeFactors& set : profile.interference) {
      EXPECT_GT(set.residual, 0);
      EXPECT_LT(set.residual, set.nodes == 0 ? row.shared_residual : row.worst_residual) << set.per_node << set.nodes;
      EXPECT_EQ(profile.factors(set.per_node, set.nodes).f, set.factors.f);
    }
  }
}

/// Seconds of the block of the golden case (plan.md 7.4): its operators, how often each, at `b` sequences.
struct Golden {
  std::int64_t b;
  double accumulate_share;  ///< (G - 1) / G
  double block_forward, block_backward, pre_forward, pre_backward, post_forward, post_backward;
};

class GoldenSums : public ::testing::TestWithParam<Golden> {
 protected:
  void add(const std::string& op, const std::vector<std::int64_t>& sizes, int times = 1) {
    const OperatorTime* found = profile_.find_operator(op, "fp16", sizes);
    ASSERT_NE(found, nullptr) << op;
    const double forward = found->forward_s;
    const double backward = found->backward_s > 2.3 * forward ? 2 * forward : found->backward_s;
    if (forward < 50e-6 || backward < 100e-6) return;
    forward_ += forward * times;
    backward_ += backward * times;
  }
  void expect(double forward, double backward, std::int64_t parameters) {
    backward_ += profile_.find_operator("accumulate", "fp16", {parameters})->forward_s * GetParam().accumulate_share;
    EXPECT_NEAR(forward_ / forward, 1, 1e-6);
    EXPECT_NEAR(backward_ / backward, 1, 1e-6);
    forward_ = backward_ = 0;
  }
  Profile profile_ = load_profile("l4-mist");
  double forward_ = 0;
  double backward_ = 0;
};

// The converted operators add up to the published predictions under Mist's rules (2.3 clamp, small ones dropped).
TEST_P(GoldenSums, AreThoseOfThePublishedPredictions) {
  const Golden& golden = GetParam();
  const std::int64_t rows = golden.b * 2048;
  const std::vector<std::int64_t> attention{golden.b, 16, 16, 2048, 128};
  add("norm", {rows, 2048}, 2);
  add("linear", {rows, 2048, 6144});
  add("linear", {rows, 2048, 2048});
  add("linear", {rows, 2048, 8192});
  add("linear", {rows, 8192, 2048});
  add("activation", {rows * 8192});
  add("residual_add", {rows * 2048}, 2);
  for (const char* op : {"attention_scores", "attention_softmax", "attention_values", "attention_dropout",
                         "attention_transpose_1", "attention_transpose_2", "attention_transpose_3"}) {
    add(op, attention);
  }
  add("dropout", {rows * 2048});
  add("dropout_functional", {rows * 2048});
  expect(golden.block_forward, golden.block_backward, 50339840);
  add("embedding", {rows, 2048, 50304});
  expect(golden.pre_forward, golden.pre_backward, 103022592);
  add("linear", {rows, 2048, 50304});
  add("cross_entropy", {rows, 50304});
  add("mean", {rows});
  add("cast", {rows, 50304});
  expect(golden.post_forward, golden.post_backward, 103022592);
}

INSTANTIATE_TEST_SUITE_P(
    Gpt13b, GoldenSums,
    ::testing::Values(Golden{8, 0.5, .052350055, .102215987, .000873472, .003050906, .116215910, .137590271},
                      Golden{2, 15.0 / 16, .013389722, .026235264, .000217293, .002879514, .028800614, .035899725}));

TEST(ShippedProfiles, OperatorsAreThoseOfTheMeasurements) {
  const auto data = base::data_dir(GANTRY_SOURCE_DIR);
  if (!data || !std::filesystem::exists(*data / "mist-l4/opdb_l4")) {
    GTEST_SKIP() << "needs mist-l4/opdb_l4 of the shared data (GANTRY_DATA)";
  }
  std::multiset<double> measured;
  for (const auto& entry : std::filesystem::directory_iterator(*data / "mist-l4/opdb_l4")) {
    const std::string name = entry.path().stem().string();
    if (name.ends_with("unbind") || name.ends_with("_make_viewless_tensor")) continue;  // views, never priced
    const base::Json rows = base::read_json_file(entry.path());
    for (const auto& [key, value] : rows.items()) measured.insert(value["fwd"][0].get<double>());
  }
  std::multiset<double> converted;
  for (const OperatorTime& time : load_profile("l4-mist").operators) converted.insert(time.forward_s);
  EXPECT_EQ(converted, measured);
}

}  // namespace
}  // namespace gantry::cost
