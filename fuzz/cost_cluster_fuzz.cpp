// Cluster files: any text is refused or gives a cluster of sane counts that survives being written and read. The text
// is tried as a name, too, as far as it can be none of a file.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "gantry/base/check.h"
#include "gantry/cost/cluster.h"

namespace {

void use(const gantry::cost::Cluster& cluster) {
  using namespace gantry::cost;
  if (cluster.nodes < 1 || cluster.devices_per_node < 1 || cluster.devices() < 1) std::abort();
  if (cluster.devices_per_host_link < 1 || cluster.devices_per_host_link > cluster.devices_per_node) std::abort();
  const auto json = cluster_to_json(cluster);
  if (cluster_to_json(cluster_from_json(gantry::base::parse_json(json.dump(), "again"), "again")) != json) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    if (size > 0 && size < 64 && text.find_first_of("/.") == std::string_view::npos) {
      use(gantry::cost::load_cluster(text));
      return 0;
    }
  } catch (const gantry::base::InputError&) {
  }
  gantry::cost::Cluster cluster;
  try {
    cluster = gantry::cost::cluster_from_json(gantry::base::parse_json(text, "fuzz"), "fuzz");
  } catch (const gantry::base::InputError&) {
    return 0;
  }
  use(cluster);
  return 0;
}
