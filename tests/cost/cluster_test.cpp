#include "gantry/cost/cluster.h"

#include <gtest/gtest.h>

#include <string>

#include "gantry/base/check.h"
#include "gantry/base/file.h"
#include "gantry/base/process.h"
#include "gantry/cost/profile.h"
#include "tests/base/test_support.h"

namespace gantry::cost {
namespace {

using base::InputError;
using base::Json;
using base::testing::message_of;
using base::testing::TemporaryFolder;

#define EXPECT_SAYS(message, part) EXPECT_PRED_FORMAT2(::testing::IsSubstring, std::string(part), std::string(message))

constexpr std::uint64_t kClusterGib = std::uint64_t{1} << 30;

Json cluster_json() {
  return {{"schema", 1},
          {"name", "lab"},
          {"profile", "l4"},
          {"nodes", 2},
          {"devices_per_node", 4},
          {"device_memory_bytes", 20 * kClusterGib},
          {"host_memory_bytes", 256 * kClusterGib},
          {"devices_per_host_link", 2}};
}

template <class Change>
std::string cluster_refusal(Change change) {
  Json json = cluster_json();
  change(json);
  return message_of<InputError>([&] { cluster_from_json(json, "c.json"); });
}

std::string name_refusal(const std::string& name) {
  return message_of<InputError>([&] { load_cluster(name); });
}

TEST(NamedClusters, AreNodesTimesDevices) {
  const Cluster cluster = load_cluster("l4-4x8");
  EXPECT_EQ(cluster.name, "l4-4x8");
  EXPECT_EQ(cluster.nodes, 4);
  EXPECT_EQ(cluster.devices_per_node, 8);
  EXPECT_EQ(cluster.devices(), 32);
  EXPECT_EQ(cluster.profile, "l4");
  EXPECT_EQ(cluster.device_memory_bytes, load_profile("l4").device_memory_bytes);
  EXPECT_EQ(cluster.host_memory_bytes, 384 * kClusterGib);
  EXPECT_EQ(cluster.devices_per_host_link, 1);
}

TEST(NamedClusters, HaveTheirOwnProfilesAndHostMemory) {
  struct Row {
    const char* name;
    const char* profile;
    std::uint64_t host_gib;
  };
  for (const Row& row : {Row{"a100-1x8", "a100-40g", 680}, Row{"a100-80g-2x4", "a100-80g", 680},
                         Row{"h100-128x8", "h100", 1872}, Row{"a10-1x1", "a10", 96}, Row{"l4-1x2", "l4", 96}}) {
    SCOPED_TRACE(row.name);
    const Cluster cluster = load_cluster(row.name);
    EXPECT_EQ(cluster.profile, row.profile);
    EXPECT_EQ(cluster.host_memory_bytes, row.host_gib * kClusterGib);
    EXPECT_EQ(cluster.device_memory_bytes, load_profile(row.profile).device_memory_bytes);
  }
}

TEST(NamedClusters, RefuseImpossibleCounts) {
  EXPECT_SAYS(name_refusal("l4-0x8"),
              "cluster 'l4-0x8': nodes (before the x) must be a number from 1 to 65536, found '0'");
  EXPECT_SAYS(name_refusal("l4-4x0"), "devices per node (after the x) must be a number from 1 to 64, found '0'");
  EXPECT_SAYS(name_refusal("l4-4x-8"), "is neither a file nor one of");
  EXPECT_SAYS(name_refusal("l4-4x 8"), "found ' 8'");
  EXPECT_SAYS(name_refusal("l4-99999999999999999999x8"), "nodes (before the x)");
  EXPECT_SAYS(name_refusal("l4-4x8x2"), "found '8x2'");
  EXPECT_SAYS(name_refusal("l4-x"), "found ''");
}

TEST(NamedClusters, UnknownNamesListTheKnownOnes) {
  for (const char* name : {"", "l4", "v100-1x8", "l4-8", "-1x1", "l4-"}) {
    EXPECT_SAYS(name_refusal(name),
                "is neither a file nor one of l4-NxM, a100-NxM, a100-80g-NxM, h100-NxM, a10-NxM, this");
  }
}

TEST(NamedClusters, ThisIsOneDeviceWithTheMemoryOfTheMachine) {
  const Cluster cluster = load_cluster("this");
  EXPECT_EQ(cluster.devices(), 1);
  EXPECT_EQ(cluster.profile, "this");
  EXPECT_EQ(cluster.device_memory_bytes, base::total_memory_bytes());
}

TEST(ClusterFile, WritingAndReadingGivesTheSameCluster) {
  const Cluster cluster = cluster_from_json(cluster_json(), "c.json");
  EXPECT_EQ(cluster.devices(), 8);
  EXPECT_EQ(cluster.device_memory_bytes, 20 * kClusterGib);
  EXPECT_EQ(cluster.host_memory_bytes, 256 * kClusterGib);
  EXPECT_EQ(cluster.devices_per_host_link, 2);
  EXPECT_EQ(Json(cluster_to_json(cluster)), cluster_json());
}

TEST(ClusterFile, NamedClustersSurviveWritingAndReading) {
  const Cluster named = load_cluster("h100-2x8");
  const base::OrderedJson json = cluster_to_json(named);
  EXPECT_EQ(cluster_to_json(cluster_from_json(json, "again")), json);
}

TEST(ClusterFile, NamesTheFieldThatIsWrong) {
  EXPECT_SAYS(cluster_refusal([](Json& json) { json["racks"] = 2; }),
              "c.json: unknown field 'racks'; the fields are schema, name");
  EXPECT_SAYS(cluster_refusal([](Json& json) { json.erase("nodes"); }), "c.json: 'nodes' is missing");
  EXPECT_SAYS(cluster_refusal([](Json& json) { json["nodes"] = 0; }),
              "c.json: 'nodes' must be from 1 to 65536, found 0");
  EXPECT_SAYS(cluster_refusal([](Json& json) { json["devices_per_node"] = 0; }),
              "'devices_per_node' must be from 1 to 64, found 0");
  EXPECT_SAYS(cluster_refusal([](Json& json) { json["devices_per_node"] = -8; }), "found -8");
  EXPECT_SAYS(cluster_refusal([](Json& json) { json["nodes"] = 1e300; }), "'nodes' has the wrong type or range");
  EXPECT_SAYS(cluster_refusal([](Json& json) { json["nodes"] = "2"; }), "'nodes' has the wrong type or range (string)");
  EXPECT_SAYS(cluster_refusal([](Json& json) { json["host_memory_bytes"] = -1; }),
              "'host_memory_bytes' must be from 0");
  EXPECT_SAYS(cluster_refusal([](Json& json) { json["host_memory_bytes"] = ~std::uint64_t{0}; }),
              "wrong type or range");
  EXPECT_SAYS(cluster_refusal([](Json& json) { json["device_memory_bytes"] = 0; }),
              "'device_memory_bytes' must be from");
  EXPECT_SAYS(cluster_refusal([](Json& json) { json["devices_per_host_link"] = 5; }),
              "'devices_per_host_link' must be from 1 to 4, found 5");
  EXPECT_SAYS(cluster_refusal([](Json& json) { json["schema"] = 7; }), "'schema' is 7; this version of gantry reads 1");
  EXPECT_SAYS(cluster_refusal([](Json& json) { json["name"] = "../x"; }), "'name' must be 1 to 64 letters");
  EXPECT_SAYS(cluster_refusal([](Json& json) { json["copies"] = Json::object(); }), "this is a profile");
  EXPECT_SAYS(cluster_refusal([](Json& json) { json = 3; }), "c.json: expected an object");
}

TEST(ClusterFile, TakesTheMemoryOfItsProfileWhereItNamesNone) {
  const TemporaryFolder folder;
  Json json = cluster_json();
  json.erase("device_memory_bytes");
  EXPECT_EQ(cluster_from_json(json, "c.json").device_memory_bytes, 0u);
  base::write_file_atomically(folder / "c.json", json.dump());
  EXPECT_EQ(load_cluster((folder / "c.json").string()).device_memory_bytes, load_profile("l4").device_memory_bytes);
}

TEST(ClusterFile, FindsAProfileBesideIt) {
  const TemporaryFolder folder;
  Json json = cluster_json();
  json["profile"] = "mine.json";
  base::write_file_atomically(folder / "c.json", json.dump());
  const std::string path = (folder / "c.json").string();
  EXPECT_SAYS(name_refusal(path), "profile 'mine.json' is neither a shipped one nor a file");
  base::write_file_atomically(folder / "mine.json", profile_to_json(load_profile("a10")).dump());
  EXPECT_EQ(load_profile(load_cluster(path).profile).name, "a10");
}

TEST(ClusterFile, MayNotBeItsOwnProfile) {
  const TemporaryFolder folder;
  Json json = cluster_json();
  json["profile"] = "c.json";
  base::write_file_atomically(folder / "c.json", json.dump());
  EXPECT_SAYS(name_refusal((folder / "c.json").string()), "'profile' names this very file");
  json["profile"] = "./other/../c.json";
  base::make_directories(folder / "other");
  base::write_file_atomically(folder / "c.json", json.dump());
  EXPECT_SAYS(name_refusal((folder / "c.json").string()), "'profile' names this very file");
  json["profile"] = "d.json";
  base::write_file_atomically(folder / "c.json", json.dump());
  base::write_file_atomically(folder / "d.json", cluster_json().dump());
  EXPECT_SAYS(name_refusal((folder / "c.json").string()), "d.json: this is a cluster, where a profile was expected");
}

}  // namespace
}  // namespace gantry::cost
