#include "gantry/plan/plan_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "gantry/base/check.h"
#include "gantry/base/file.h"
#include "tests/plan/sample_plans.h"

namespace gantry::plan {
namespace {

// The second golden plan of the paper: two stages of one device.
TrainPlan golden_plan() {
  TrainPlan plan = sample_plan({12, 12}, 1, 1, 2, 16);
  plan.model_hash = "0123abcd";
  plan.profile_hash = "89ef";
  plan.flash_attention = false;
  plan.stages[0].checkpointed = 5;
  plan.stages[0].policy.optimizer_offload = 0.375;
  plan.stages[1].policy.mode = cost::LayerMode::kInPlace;
  plan.stages[0].predicted = StagePrediction{0.5455, 0, 19e9, 19.5e9, 0};
  plan.predicted = PlanPrediction{9.268924, 7070.5};
  plan.runner_up = RunnerUp{9.5, "accumulation 8"};
  plan.provenance = {{"measured", 40}, {"roofline", 2}};
  return plan;
}

constexpr const char* kGoldenText = R"({
  "schema": 1,
  "model": {"name": "gpt-1.3b", "hash": "0123abcd"},
  "cluster": "l4-1x2",
  "profile": {"name": "l4", "hash": "89ef"},
  "dtype": "fp16",
  "flash_attention": false,
  "chunked_loss": false,
  "sequence_tokens": 2048,
  "global_batch": 32,
  "accumulation": 16,
  "schedule": "1f1b",
  "chunks": 1,
  "stages": [
    {
      "layers": [0, 12],
      "mesh": {"nodes": 1, "per_node": 1, "ranks": [0]},
      "micro_batch": 2,
      "data_parallel": 1,
      "tensor_parallel": 1,
      "sequence_parallel": false,
      "zero": 1,
      "checkpointed": 5,
      "offload": {"weights": 0.0, "gradients": 0.0, "optimizer": 0.375, "activations": 0.0},
      "layer_mode": "store",
      "predicted": {
        "t_s": 0.5455,
        "d_s": 0.0,
        "memory_forward_bytes": 19000000000.0,
        "memory_backward_bytes": 19500000000.0,
        "host_bytes": 0.0
      }
    },
    {
      "layers": [12, 24],
      "mesh": {"nodes": 1, "per_node": 1, "ranks": [1]},
      "micro_batch": 2,
      "data_parallel": 1,
      "tensor_parallel": 1,
      "sequence_parallel": false,
      "zero": 1,
      "checkpointed": 0,
      "offload": {"weights": 0.0, "gradients": 0.0, "optimizer": 0.0, "activations": 0.0},
      "layer_mode": "in_place"
    }
  ],
  "predicted": {"iteration_s": 9.268924, "tokens_per_s": 7070.5},
  "runner_up": {"iteration_s": 9.5, "difference": "accumulation 8"},
  "provenance": {"measured": 40, "roofline": 2}
}
)";

constexpr const char* kMinimal = R"({"schema": 1, "model": {"name": "m"}, "sequence_tokens": 8, "global_batch": 2,
  "accumulation": 2, "stages": [{"layers": [0, 3], "mesh": {"nodes": 1, "per_node": 1}, "micro_batch": 1,
  "data_parallel": 1, "tensor_parallel": 1, "zero": 0, "checkpointed": 0}]})";

TrainPlan parse(std::string_view text) { return plan_from_json(base::parse_json(text, "p.json"), "p.json"); }

// The minimal plan with the field at a JSON pointer changed; "null" as text erases.
std::string error_with(const std::string& pointer, const base::Json& value) {
  base::Json json = base::parse_json(kMinimal, "minimal");
  const base::Json::json_pointer at(pointer);
  if (value.is_discarded()) {
    json.at(at.parent_pointer()).erase(at.back());
  } else {
    json[at] = value;
  }
  try {
    plan_from_json(json, "p.json");
  } catch (const base::InputError& error) {
    return error.what();
  }
  return "no error";
}

std::string error_without(const std::string& pointer) {
  return error_with(pointer, base::Json(base::Json::value_t::discarded));
}

TEST(PlanFile, TextIsReadableAndOrdered) { EXPECT_EQ(plan_to_text(golden_plan()), kGoldenText); }

TEST(PlanFile, ReadsWhatItWrites) {
  EXPECT_EQ(parse(kGoldenText), golden_plan());
  TrainPlan plan = golden_plan();
  plan.schedule = Schedule::kInterleaved;
  plan.chunks = 3;
  plan.chunked_loss = true;
  plan.dtype = "bf16";
  plan.stages[1].policy.sequence_parallel = true;
  plan.stages[1].policy.zero = 3;
  plan.stages[1].policy.activation_offload = 1.0 / 3;
  plan.stages[1].ranks.clear();
  EXPECT_EQ(parse(plan_to_text(plan)), plan);
  EXPECT_EQ(plan_from_json(base::Json(plan_to_json(plan)), "again"), plan);
}

TEST(PlanFile, OptionalFieldsHaveTheDefaultsOfTheTypes) {
  const TrainPlan plan = parse(kMinimal);
  EXPECT_EQ(plan.dtype, "fp16");
  EXPECT_TRUE(plan.flash_attention);
  EXPECT_EQ(plan.schedule, Schedule::kOneFOneB);
  EXPECT_EQ(plan.chunks, 1);
  ASSERT_EQ(plan.stages.size(), 1u);
  EXPECT_TRUE(plan.stages[0].ranks.empty());
  EXPECT_EQ(plan.stages[0].policy.optimizer_offload, 0);
  EXPECT_FALSE(plan.stages[0].predicted);
}

TEST(PlanFile, LongRankListsStayOnOneLine) {
  TrainPlan plan = sample_plan({24}, 64, 1, 1, 1);
  const std::string text = plan_to_text(plan);
  EXPECT_NE(text.find("\"ranks\": [0, 1, 2, 3"), std::string::npos);
  EXPECT_NE(text.find("62, 63]"), std::string::npos);
  EXPECT_EQ(parse(text), plan);
}

TEST(PlanFile, UnknownFieldsAreErrorsThatListTheKnownOnes) {
  EXPECT_EQ(error_with("/stages/0/mesh/devices", 4),
            "p.json: stages[0]: mesh: unknown field 'devices'; the fields are nodes, per_node, ranks");
  EXPECT_EQ(error_with("/model/size", 1), "p.json: model: unknown field 'size'; the fields are hash, name");
  EXPECT_NE(error_with("/stages/0/dp", 4).find("stages[0]: unknown field 'dp'; the fields are checkpointed, data_par"),
            std::string::npos);
  EXPECT_NE(error_with("/seq_len", 4).find("p.json: unknown field 'seq_len'"), std::string::npos);
  EXPECT_NE(error_with("/stages/0/offload", {{"grads", 1}}).find("offload: unknown field 'grads'"), std::string::npos);
}

TEST(PlanFile, MissingFieldsAreNamed) {
  EXPECT_EQ(error_without("/stages/0/zero"), "p.json: stages[0]: 'zero' is missing");
  EXPECT_EQ(error_without("/stages/0/mesh"), "p.json: stages[0]: 'mesh' is missing");
  EXPECT_EQ(error_without("/stages/0/mesh/nodes"), "p.json: stages[0]: mesh: 'nodes' is missing");
  EXPECT_EQ(error_without("/schema"), "p.json: 'schema' is missing");
  EXPECT_EQ(error_without("/stages"), "p.json: 'stages' is missing");
  EXPECT_EQ(error_without("/global_batch"), "p.json: 'global_batch' is missing");
}

TEST(PlanFile, RangesAreChecked) {
  EXPECT_EQ(error_with("/schema", 2), "p.json: 'schema' is 2, this version of gantry reads 1; plan again with it");
  EXPECT_EQ(error_with("/stages/0/micro_batch", 0), "p.json: stages[0]: 'micro_batch' must be 1 to 1000000, found 0");
  EXPECT_EQ(error_with("/stages/0/zero", 4), "p.json: stages[0]: 'zero' must be 0 to 3, found 4");
  EXPECT_EQ(error_with("/stages/0/offload", {{"weights", 1.5}}),
            "p.json: stages[0]: offload: 'weights' must be 0 to 1, found 1.5");
  EXPECT_EQ(error_with("/stages/0/layers", {3, 3}),
            "p.json: stages[0]: 'layers' must be [first, end) with 0 <= first < end <= 100000, found [3, 3]");
  EXPECT_EQ(error_with("/stages/0/layers", {0, 1, 2}),
            "p.json: stages[0]: 'layers' must be [first, end), two numbers, found 3");
  EXPECT_EQ(error_with("/stages/0/layers", {0, 1.5}),
            "p.json: stages[0]: 'layers' has the wrong type or range (array)");
  EXPECT_EQ(error_with("/stages/0/mesh/ranks", {-1}), "p.json: stages[0]: mesh: 'ranks' must be 0 to 999999, found -1");
  EXPECT_EQ(error_with("/schedule", "gpipe"),
            "p.json: 'schedule' must be one of '1f1b', 'interleaved', 'zero_bubble', found 'gpipe'");
  EXPECT_EQ(error_with("/stages/0/layer_mode", "fast"),
            "p.json: stages[0]: 'layer_mode' must be one of 'store', 'in_place', 'recompute', 'rerun_mlp', "
            "'rerun', found 'fast'");
  EXPECT_EQ(error_with("/stages", base::Json::array()), "p.json: 'stages' is empty; a plan has at least one stage");
}

TEST(PlanFile, SumsAndProductsCannotOverflow) {
  EXPECT_EQ(error_with("/stages/0/mesh", {{"nodes", 100000}, {"per_node", 100000}}),
            "p.json: stages[0]: mesh: 100000 nodes of 100000 devices are more than 1000000 devices");
  base::Json json = base::parse_json(kMinimal, "minimal");
  json["stages"][0]["layers"] = {0, 100000};
  json["stages"].push_back(json["stages"][0]);
  try {
    plan_from_json(json, "p.json");
    FAIL() << "accepted";
  } catch (const base::InputError& error) {
    EXPECT_STREQ(
        error.what(),
        "p.json: stages up to [1] hold 200000 layers and 2 devices, more than 100000 layers or 1000000 devices");
  }
}

TEST(PlanFile, APredictionThatIsNoNumberIsNotWritten) {
  TrainPlan plan = golden_plan();
  plan.predicted->iteration_s = std::numeric_limits<double>::infinity();
  try {
    plan_to_text(plan);
    FAIL() << "accepted";
  } catch (const base::Error& error) {
    EXPECT_STREQ(error.what(), "plan: predicted iteration_s is inf, which no plan file can hold");
  }
}

TEST(PlanFile, FilesAreWrittenAndReadWhole) {
  const auto folder = std::filesystem::temp_directory_path() / "gantry_plan_file_test";
  std::filesystem::create_directories(folder);
  const auto path = folder / "plan.json";
  write_plan(golden_plan(), path);
  EXPECT_EQ(base::read_text_file(path), kGoldenText);
  EXPECT_EQ(read_plan(path), golden_plan());
  base::write_file_atomically(path, "{\"schema\": ");
  try {
    read_plan(path);
    FAIL() << "accepted";
  } catch (const base::InputError& error) {
    EXPECT_EQ(std::string(error.what()).find(path.string() + ": not valid JSON"), 0u) << error.what();
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace gantry::plan
