#include "gantry/cost/profile.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "gantry/base/check.h"
#include "gantry/base/file.h"
#include "gantry/cost/cluster.h"
#include "tests/base/test_support.h"

namespace gantry::cost {
namespace {

using base::Json;
using base::testing::message_of;

#define EXPECT_SAYS(message, part) EXPECT_PRED_FORMAT2(::testing::IsSubstring, std::string(part), std::string(message))

Json valid_json() {
  return Json::parse(R"({
    "schema": 1, "name": "bench", "device": "Test device", "source": "made up", "device_memory_bytes": 1073741824,
    "memory_bytes_per_s": 3e11, "matrix_flops_per_s": {"fp16": 1.21e14, "fp32": 3e13},
    "host_update_elements_per_s": 2e9,
    "copies": {"in": {"gib_per_s": 5.5, "latency_s": 0.0004, "provenance": "fitted", "residual": 0.01},
               "out": {"gib_per_s": 6, "latency_s": 0, "provenance": "measured"}},
    "p2p": {"inter": {"gib_per_s": 0.3, "latency_s": 0.002, "provenance": "data sheet"}},
    "collectives": [
      {"per_node": 2, "nodes": 1, "gib_per_s": 2.964, "latency_s": 0.0001, "provenance": "fitted"},
      {"per_node": 1, "nodes": 2, "gib_per_s": 0.4895, "latency_s": 0.0045, "provenance": "roofline"}],
    "interference": [
      {"per_node": 0, "nodes": 0, "residual": 0.02, "factors": {
        "CGHO": [1.1, 1.2, 1.3, 1.4], "CGH": [1.5, 1.6, 1.7], "CGO": [1.8, 1.9, 2.0], "CHO": [2.1, 2.2, 2.3],
        "GHO": [2.4, 2.5, 2.6], "CG": [2.7, 2.8], "CH": [2.9, 3.0], "CO": [3.1, 3.2], "GH": [3.3, 3.4],
        "GO": [3.5, 3.6], "HO": [3.7, 3.8]}}],
    "operators": [
      {"op": "linear", "dtype": "fp16", "sizes": {"rows": 2048, "in": 512, "out": 1024},
       "forward_s": 0.0001, "backward_s": 0.00021},
      {"op": "mean", "dtype": "fp32", "sizes": {"rows": 2048}, "forward_s": 0.00005}]
  })");
}

template <class Change>
std::string refusal(Change change) {
  Json json = valid_json();
  change(json);
  try {
    profile_from_json(json, "x.json");
  } catch (const base::InputError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(ProfileFile, ReadsEveryField) {
  const Profile profile = profile_from_json(valid_json(), "x.json");
  EXPECT_EQ(profile.name, "bench");
  EXPECT_EQ(profile.device_memory_bytes, 1073741824u);
  EXPECT_EQ(profile.matrix_flops_per_s.at("fp16"), 1.21e14);
  EXPECT_EQ(profile.memory_bytes_per_s, 3e11);
  EXPECT_EQ(profile.host_update_elements_per_s, 2e9);
  EXPECT_EQ(profile.copy_in.gb_per_s, 5.5);
  EXPECT_EQ(profile.copy_in.residual, 0.01);
  EXPECT_EQ(profile.copy_out.provenance, Provenance::kMeasured);
  EXPECT_FALSE(profile.p2p_intra.has_value());
  EXPECT_EQ(profile.p2p_inter->provenance, Provenance::kDataSheet);
  ASSERT_EQ(profile.collectives.size(), 2u);
  EXPECT_EQ(profile.collectives[1].nodes, 2);
  EXPECT_EQ(profile.collectives[1].link.latency_s, 0.0045);
  EXPECT_EQ(profile.interference[0].residual, 0.02);
  ASSERT_EQ(profile.operators.size(), 2u);
  EXPECT_EQ(profile.operators[1].backward_s, 0);
}

TEST(ProfileFile, FactorsStandInTheOrderOfTheirSets) {
  const Profile profile = profile_from_json(valid_json(), "x.json");
  const auto& f = profile.interference[0].factors.f;
  for (int i = 0; i < kFactorCount; ++i) EXPECT_DOUBLE_EQ(f[static_cast<std::size_t>(i)], 1.1 + i * 0.1) << i;
}

TEST(ProfileFile, WritingAndReadingGivesTheSameProfile) {
  const Profile first = profile_from_json(valid_json(), "x.json");
  const std::string text = profile_to_json(first).dump();
  const Profile second = profile_from_json(base::parse_json(text, "again"), "again");
  EXPECT_EQ(profile_to_json(second).dump(), text);
  EXPECT_EQ(profile_hash(second), profile_hash(first));
  EXPECT_EQ(second.operators[0].sizes, (std::vector<std::int64_t>{2048, 512, 1024}));
}

TEST(ProfileFile, TheHashFollowsTheContent) {
  Profile profile = profile_from_json(valid_json(), "x.json");
  const std::string before = profile_hash(profile);
  EXPECT_EQ(before.size(), 16u);
  EXPECT_EQ(before.find_first_not_of("0123456789abcdef"), std::string::npos);
  profile.operators[0].backward_s = std::nextafter(profile.operators[0].backward_s, 1.0);
  EXPECT_NE(profile_hash(profile), before);
}

TEST(ProfileFile, NamesUnknownFields) {
  EXPECT_SAYS(refusal([](Json& json) { json["latency"] = 1; }), "x.json: unknown field 'latency'");
  EXPECT_SAYS(refusal([](Json& json) { json["copies"]["in"]["gb"] = 1; }),
              "x.json: copies.in: unknown field 'gb'; the fields are gib_per_s, latency_s");
  EXPECT_SAYS(refusal([](Json& json) { json["operators"][0]["sizes"]["batch"] = 1; }),
              "x.json: operators[0].sizes: unknown field 'batch'; the fields are rows, in, out");
  EXPECT_SAYS(refusal([](Json& json) { json["matrix_flops_per_s"]["fp64"] = 1e12; }), "'fp64'");
}

TEST(ProfileFile, NamesMissingFields) {
  for (const char* field : {"schema", "name", "device", "source", "device_memory_bytes", "copies", "collectives"}) {
    EXPECT_SAYS(refusal([&](Json& json) { json.erase(field); }), "'" + std::string(field) + "' is missing");
  }
  EXPECT_SAYS(refusal([](Json& json) { json["operators"][0]["sizes"].erase("in"); }),
              "x.json: operators[0].sizes: 'in' is missing");
  EXPECT_SAYS(refusal([](Json& json) { json["interference"][0]["factors"].erase("GO"); }),
              "x.json: interference[0].factors: 'GO' is missing");
}

TEST(ProfileFile, NamesValuesOutOfRange) {
  EXPECT_SAYS(refusal([](Json& json) { json["collectives"][0]["gib_per_s"] = -3; }),
              "x.json: collectives[0]: 'gib_per_s' must be from 1e-06 to");
  EXPECT_SAYS(refusal([](Json& json) { json["copies"]["out"]["latency_s"] = -1e-9; }),
              "x.json: copies.out: 'latency_s' must be from 0");
  EXPECT_SAYS(refusal([](Json& json) { json["device_memory_bytes"] = 0; }), "'device_memory_bytes' must");
  EXPECT_SAYS(refusal([](Json& json) { json["device_memory_bytes"] = 1e30; }), "wrong type or range");
  EXPECT_SAYS(refusal([](Json& json) { json["operators"][0]["sizes"]["in"] = 1.5; }), "wrong type or range");
  EXPECT_SAYS(refusal([](Json& json) { json["operators"][0]["sizes"]["in"] = 0; }), "'in' must be from 1");
  EXPECT_SAYS(refusal([](Json& json) { json["operators"][0]["forward_s"] = 0; }), "must be more than 0");
  EXPECT_SAYS(refusal([](Json& json) {
                json["interference"][0]["factors"]["CG"] = {0.5, 1};
              }),
              "'CG' holds 0.5; a slowdown must be from 1");
  EXPECT_SAYS(refusal([](Json& json) {
                json["interference"][0]["factors"]["CG"] = {1, 1, 1};
              }),
              "a factor for each of its 2 channels, found 3");
  EXPECT_SAYS(refusal([](Json& json) { json["name"] = "a b"; }), "'name' must be 1 to 64 letters");
  EXPECT_SAYS(refusal([](Json& json) { json["schema"] = 2; }), "'schema' is 2; this version");
}

TEST(ProfileFile, NamesWhatDoesNotFitTogether) {
  EXPECT_SAYS(refusal([](Json& json) { json["operators"].push_back(json["operators"][0]); }),
              "x.json: operators[2]: the same operator and sizes stand there already");
  EXPECT_SAYS(refusal([](Json& json) { json["collectives"].push_back(json["collectives"][0]); }),
              "collectives[2]: per_node 2 on 1 nodes stands there already");
  EXPECT_SAYS(refusal([](Json& json) { json["collectives"][0]["per_node"] = 1; }),
              "a group of one device needs no link");
  EXPECT_SAYS(refusal([](Json& json) { json["interference"][0]["nodes"] = 1; }), "both 0 (any group)");
  EXPECT_SAYS(refusal([](Json& json) { json["operators"][0]["op"] = "conv"; }),
              "unknown operator 'conv'; the operators are linear, norm");
  EXPECT_SAYS(refusal([](Json& json) { json["operators"][0]["dtype"] = "int3"; }),
              "'dtype' must be one of fp16, bf16, fp32, found 'int3'");
  EXPECT_SAYS(refusal([](Json& json) { json["copies"]["in"]["provenance"] = "guess"; }),
              "must be one of measured, fitted, roofline, data sheet, found 'guess'");
  EXPECT_SAYS(refusal([](Json& json) {
                json.erase("operators");
                json.erase("memory_bytes_per_s");
              }),
              "no way to price an operator");
  EXPECT_SAYS(refusal([](Json& json) { json["devices_per_node"] = 8; }), "this is a cluster");
  EXPECT_SAYS(refusal([](Json& json) { json = Json::array(); }), "x.json: expected an object, found array");
}

TEST(Profile, FindsOperatorsByNameTypeAndSizes) {
  const Profile profile = profile_from_json(valid_json(), "x.json");
  const OperatorTime* found = profile.find_operator("linear", "fp16", {2048, 512, 1024});
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->backward_s, 0.00021);
  EXPECT_EQ(profile.find_operator("linear", "bf16", {2048, 512, 1024}), nullptr);
  EXPECT_EQ(profile.find_operator("linear", "fp16", {2048, 1024, 512}), nullptr);
  EXPECT_EQ(profile.find_operator("norm", "fp16", {2048}), nullptr);
}

TEST(Profile, FactorsOfAShapeGoBeforeTheSharedOnes) {
  Profile profile;
  EXPECT_EQ(profile.factors(8, 1).f[0], 1.0);
  ShapeFactors shared;
  shared.factors.f.fill(2);
  ShapeFactors own{8, 1, {}, 0};
  own.factors.f.fill(3);
  profile.interference = {own, shared};
  EXPECT_EQ(profile.factors(8, 1).f[0], 3.0);
  EXPECT_EQ(profile.factors(8, 2).f[0], 2.0);
  profile.interference = {own};
  EXPECT_EQ(profile.factors(4, 1).f[0], 1.0);
}

/// The first JSON example below a heading of docs/plan.md.
Json manual_example(const std::string& heading) {
  const std::string page = base::read_text_file(GANTRY_SOURCE_DIR "/docs/plan.md");
  const std::size_t start = page.find("```json\n", page.find("\n### " + heading + "\n")) + 8;
  return base::parse_json(page.substr(start, page.find("```", start) - start), "docs/plan.md");
}

TEST(ProfileFile, TheExamplesOfTheManualAreValid) {
  EXPECT_EQ(profile_from_json(manual_example("Profiles"), "docs/plan.md").operators.size(), 1u);
  EXPECT_EQ(cluster_from_json(manual_example("Clusters"), "docs/plan.md").devices(), 8);
}

TEST(LoadProfile, ReadsFiles) {
  const base::testing::TemporaryFolder folder;
  base::write_file_atomically(folder / "p.json", valid_json().dump());
  EXPECT_EQ(load_profile((folder / "p.json").string()).name, "bench");
  base::write_file_atomically(folder / "bad.json", "{\"schema\": 1,");
  EXPECT_SAYS(message_of<base::InputError>([&] { load_profile((folder / "bad.json").string()); }),
              "bad.json: not valid JSON");
  EXPECT_SAYS(message_of<base::InputError>([&] { load_profile(folder.path().string()); }), "regular file");
}

TEST(LoadProfile, ListsTheNamesForAnUnknownOne) {
  EXPECT_SAYS(message_of<base::InputError>([] { load_profile("l5"); }),
              "profile 'l5' is neither a file nor one of a10, a100-40g");
}

TEST(LoadProfile, ThisAsksForAMeasurementFirst) {
  const base::testing::TemporaryFolder folder;
  const base::testing::ScopedEnv cache("XDG_CACHE_HOME", folder.path().string());
  EXPECT_SAYS(message_of<base::InputError>([] { load_profile("this"); }), "run `gantry profile` first");
  base::make_directories(folder / "gantry");
  base::write_file_atomically(folder / "gantry/profile.json", valid_json().dump());
  EXPECT_EQ(load_profile("this").name, "bench");
}

TEST(LoadProfile, ThisStandsInTheCacheFolderOfTheUser) {
  const base::testing::ScopedEnv cache("XDG_CACHE_HOME", std::nullopt);
  const base::testing::ScopedEnv home("HOME", "/home/someone");
  EXPECT_EQ(user_profile_path(), "/home/someone/.cache/gantry/profile.json");
  const base::testing::ScopedEnv homeless("HOME", std::nullopt);
  EXPECT_SAYS(message_of<base::InputError>([] { user_profile_path(); }), "set HOME or XDG_CACHE_HOME");
}

}  // namespace
}  // namespace gantry::cost
