#pragma once
// A cluster: nodes of equal devices, as a JSON file or a name. What its links deliver stands in the profile it names.
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "gantry/base/json.h"

namespace gantry::cost {

struct Cluster {
  std::string name;     ///< "l4-4x8"
  std::string profile;  ///< name of a shipped profile, or path of a file
  int nodes = 1;
  int devices_per_node = 1;
  /// What a framework can use, of one device. 0 in a file that leaves it out until load_cluster() takes the profile's.
  std::uint64_t device_memory_bytes = 0;
  std::uint64_t host_memory_bytes = 0;  ///< of one node, for offloaded states; 0: not limited
  /// Devices whose host copies share one link, beyond what the profile's measurement shared already.
  int devices_per_host_link = 1;

  int devices() const { return nodes * devices_per_node; }
};

/// A named cluster ("l4-NxM", "a100-NxM", "a100-80g-NxM", "h100-NxM", "a10-NxM": nodes x devices of each), or the path
/// of a JSON file. "this" is the machine at hand: one node, one device (the processor), with the profile "this", which
/// is not loaded. InputError lists the names, and names the field of a file that is missing, unknown, zero or out of
/// range. A file's profile is loaded to check it; a relative path is taken from the file's folder.
Cluster load_cluster(std::string_view name_or_path);
/// Reads no other file.
Cluster cluster_from_json(const base::Json& json, std::string_view source);
base::OrderedJson cluster_to_json(const Cluster& cluster);

}  // namespace gantry::cost
