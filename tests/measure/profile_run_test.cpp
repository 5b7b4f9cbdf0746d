// A quick run on a small model: what comes out prices a plan from measurements alone.
#include "gantry/measure/profile_run.h"

#include <gtest/gtest.h>

#include "gantry/base/interrupt.h"
#include "gantry/base/json.h"
#include "gantry/cost/stage.h"
#include "gantry/spec/named_models.h"
#include "tests/test_support.h"

namespace gantry::measure {
namespace {

ProfileOptions quick() {
  ProfileOptions options;
  options.sequence = 32;
  options.batch = {"1", "2"};
  options.threads = 1;
  options.quick = true;
  return options;
}

TEST(ProfileRun, AQuickProfileReadsBackAndPricesAPlanFromMeasuredOperatorsAlone) {
  const spec::ModelConfig model = spec::named_model("smollm2-135m");
  const ProfileReport report = run_profile(model, "smollm2-135m", quick(), nullptr);
  const auto json = base::parse_json(cost::profile_to_json(report.profile).dump(), "profile");
  const cost::Profile profile = cost::profile_from_json(json, "profile");
  EXPECT_EQ(cost::profile_hash(profile), cost::profile_hash(report.profile));
  EXPECT_EQ(report.operators.size(), profile.operators.size());
  EXPECT_GT(profile.memory_bytes_per_s, 1e8);
  EXPECT_GT(profile.matrix_flops_per_s.at("fp32"), 1e8);
  EXPECT_GT(profile.host_update_elements_per_s, 1e5);
  const cost::Cluster cluster = cost::load_cluster("this");
  for (const int batch : {1, 2}) {
    const cost::CostModel costs(model, 32, profile, cluster, {.dtype = "fp32"});
    cost::StageQuery query;
    query.layers = static_cast<int>(model.num_layers);
    query.policy.micro_batch = batch;
    EXPECT_GT(costs.price(query).t_s, 0);
    const auto counts = costs.provenance().operators;
    EXPECT_GT(counts[static_cast<std::size_t>(cost::Provenance::kMeasured)], 0);
    EXPECT_EQ(counts[static_cast<std::size_t>(cost::Provenance::kRoofline)], 0) << "an operator was not measured";
    EXPECT_EQ(counts[static_cast<std::size_t>(cost::Provenance::kDataSheet)], 0);
  }
}

TEST(ProfileRun, OptionsAreCheckedBeforeAnythingIsMeasured) {
  const spec::ModelConfig model = spec::named_model("smollm2-135m");
  const auto message = [&](auto&& change) {
    ProfileOptions options = quick();
    change(options);
    return tests::input_error([&] { check_options(model, options); });
  };
  EXPECT_MENTIONS(message([](auto& o) { o.dtype = "fp64"; }), "--dtype must be fp32 or bf16, found 'fp64'");
  EXPECT_MENTIONS(message([](auto& o) { o.batch = {"two"}; }), "found 'two'");
  EXPECT_MENTIONS(message([](auto& o) { o.batch.clear(); }), "--batch needs");
  EXPECT_MENTIONS(message([](auto& o) { o.sequence = 1 << 20; }), "--sequence must be from 1 to");
  EXPECT_MENTIONS(message([](auto& o) { o.threads = -1; }), "--threads");
}

TEST(ProfileRun, AnInterruptEndsItWithoutAProfile) {
  base::set_interrupted(true);
  const std::string message = tests::message_of<base::Interrupted>(
      [] { run_profile(spec::named_model("smollm2-135m"), "smollm2-135m", quick(), nullptr); });
  base::set_interrupted(false);
  EXPECT_MENTIONS(message, "nothing was written");
}

}  // namespace
}  // namespace gantry::measure
