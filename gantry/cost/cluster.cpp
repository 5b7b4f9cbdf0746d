#include "gantry/cost/cluster.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <utility>

#include "gantry/base/check.h"
#include "gantry/base/process.h"
#include "gantry/cost/field_reader.h"
#include "gantry/cost/profile.h"

namespace gantry::cost {
namespace {

constexpr int kClusterSchema = 1;
constexpr std::int64_t kMostNodes = 65536;
constexpr std::int64_t kMostDevicesPerNode = 64;
constexpr std::int64_t kGib = std::int64_t{1} << 30;
constexpr std::int64_t kMostBytes = std::int64_t{1} << 52;
constexpr std::uint64_t kMostFileBytes = std::uint64_t{1} << 20;

/// Clusters of "<prefix>-<nodes>x<devices>". Host memory is that of cloud nodes with eight devices, an eighth for each:
/// their smaller siblings have it in proportion (GCP's "GB" are 2^30 bytes).
struct Kind {
  std::string_view prefix;
  std::string_view profile;
  std::int64_t host_gib_per_device;
};
constexpr Kind kKinds[] = {
    {"l4", "l4", 48},               // GCP g2-standard-96: 8 L4, 384 GB
    {"a100", "a100-40g", 85},       // GCP a2-highgpu-8g: 680 GB
    {"a100-80g", "a100-80g", 170},  // GCP a2-ultragpu-8g: 1,360 GB
    {"h100", "h100", 234},          // GCP a3-highgpu-8g: 1,872 GB
    {"a10", "a10", 96},             // AWS g5.48xlarge: 8 A10G, 768 GiB
};

std::string names() {
  std::string list;
  for (const Kind& kind : kKinds) list += fmt::format("{}-NxM, ", kind.prefix);
  return list + "this";
}

/// A whole number without sign or blanks; nothing for other text or more than an int32 holds.
std::optional<int> parse_count(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.starts_with('-')) return std::nullopt;
  return value;
}

int checked_count(std::string_view text, std::int64_t most, std::string_view what, std::string_view name) {
  const auto count = parse_count(text);
  GANTRY_CHECK(count && *count >= 1 && *count <= most, "cluster '{}': {} must be a number from 1 to {}, found '{}'",
               name, what, most, text.substr(0, 40));
  return *count;
}

/// Nothing where `name` is not a known prefix followed by "-<something>x<something>".
std::optional<Cluster> named_cluster(std::string_view name) {
  const auto dash = name.rfind('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const std::string_view counts = name.substr(dash + 1);
  const auto times = counts.find('x');
  for (const Kind& kind : kKinds) {
    if (name.substr(0, dash) != kind.prefix || times == std::string_view::npos) continue;
    Cluster cluster;
    cluster.name = name;
    cluster.profile = kind.profile;
    cluster.nodes = checked_count(counts.substr(0, times), kMostNodes, "nodes (before the x)", name);
    cluster.devices_per_node =
        checked_count(counts.substr(times + 1), kMostDevicesPerNode, "devices per node (after the x)", name);
    cluster.device_memory_bytes = load_profile(kind.profile).device_memory_bytes;
    cluster.host_memory_bytes =
        static_cast<std::uint64_t>(kind.host_gib_per_device * kGib) * static_cast<unsigned>(cluster.devices_per_node);
    return cluster;
  }
  return std::nullopt;
}

Cluster this_machine() {
  Cluster cluster;
  cluster.name = cluster.profile = "this";
  cluster.device_memory_bytes = cluster.host_memory_bytes = base::total_memory_bytes();
  return cluster;
}

bool is_shipped(const std::string& profile) {
  for (const std::string& name : shipped_profile_names()) {
    if (name == profile) return true;
  }
  return false;
}

Cluster read_cluster(const std::filesystem::path& path) {
  Cluster cluster = cluster_from_json(base::read_json_file(path, kMostFileBytes), path.string());
  if (cluster.profile != "this" && !is_shipped(cluster.profile)) {
    const std::filesystem::path profile = path.parent_path() / cluster.profile;  // an absolute one replaces the folder
    std::error_code failed;
    GANTRY_CHECK(std::filesystem::exists(profile, failed),
                 "{}: profile '{}' is neither a shipped one nor a file ({} is missing)", path.string(), cluster.profile,
                 profile.string());
    GANTRY_CHECK(!std::filesystem::equivalent(profile, path, failed),
                 "{}: 'profile' names this very file; it must name a profile, for instance 'l4'", path.string());
    cluster.profile = profile.string();
  }
  const Profile profile = load_profile(cluster.profile);
  if (cluster.device_memory_bytes == 0) cluster.device_memory_bytes = profile.device_memory_bytes;
  return cluster;
}

}  // namespace

Cluster load_cluster(std::string_view name_or_path) {
  if (name_or_path == "this") return this_machine();
  const std::filesystem::path path(name_or_path);
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored)) return read_cluster(path);
  if (auto cluster = named_cluster(name_or_path)) return *std::move(cluster);
  base::fail_input("cluster '{}' is neither a file nor one of {} (N nodes of M devices, as in l4-4x8)", name_or_path,
                   names());
}

Cluster cluster_from_json(const base::Json& json, std::string_view source) {
  GANTRY_CHECK(!json.is_object() || !json.contains("copies"),
               "{}: this is a profile, where a cluster was expected; a cluster names one in its field 'profile'",
               source);
  const FieldReader file(json, source, "",
                         {"schema", "name", "profile", "nodes", "devices_per_node", "device_memory_bytes",
                          "host_memory_bytes", "devices_per_host_link"});
  check_schema(json, kClusterSchema, source);
  Cluster cluster;
  cluster.name = file.text("name", 4096);
  check_name(cluster.name, file.place());
  cluster.profile = file.text("profile", 4096);
  cluster.nodes = static_cast<int>(file.integer("nodes", {1, kMostNodes}));
  cluster.devices_per_node = static_cast<int>(file.integer("devices_per_node", {1, kMostDevicesPerNode}));
  if (file.has("device_memory_bytes")) {
    cluster.device_memory_bytes =
        static_cast<std::uint64_t>(file.integer("device_memory_bytes", {1 << 20, kMostBytes}));
  }
  cluster.host_memory_bytes = static_cast<std::uint64_t>(file.integer_or("host_memory_bytes", 0, {0, kMostBytes}));
  cluster.devices_per_host_link =
      static_cast<int>(file.integer_or("devices_per_host_link", 1, {1, cluster.devices_per_node}));
  return cluster;
}

base::OrderedJson cluster_to_json(const Cluster& cluster) {
  base::OrderedJson json{{"schema", kClusterSchema},
                         {"name", cluster.name},
                         {"profile", cluster.profile},
                         {"nodes", cluster.nodes},
                         {"devices_per_node", cluster.devices_per_node}};
  if (cluster.device_memory_bytes > 0) json["device_memory_bytes"] = cluster.device_memory_bytes;
  if (cluster.host_memory_bytes > 0) json["host_memory_bytes"] = cluster.host_memory_bytes;
  if (cluster.devices_per_host_link > 1) json["devices_per_host_link"] = cluster.devices_per_host_link;
  return json;
}

}  // namespace gantry::cost
