// Profile files: any text is refused or gives a profile that can be searched and that survives being written and read.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "gantry/base/check.h"
#include "gantry/cost/profile.h"

namespace {

void use(const gantry::cost::Profile& profile) {
  using namespace gantry::cost;
  for (const OperatorTime& time : profile.operators) {
    const OperatorTime* found = profile.find_operator(time.op, time.dtype, time.sizes);
    if (found != &time) std::abort();  // no duplicates
    if (!(time.forward_s > 0 && time.backward_s >= 0)) std::abort();
    if (profile.operators.size() > 1000) break;
  }
  for (const int shape : {0, 1, 8}) {
    for (const double factor : profile.factors(shape, shape).f) {
      if (!(factor >= 1)) std::abort();
    }
  }
  for (const CollectiveLink& link : profile.collectives) {
    if (!(link.link.gb_per_s > 0 && link.link.latency_s >= 0) || link.per_node * link.nodes < 2) std::abort();
  }
  const auto json = profile_to_json(profile);
  if (profile_hash(profile_from_json(gantry::base::parse_json(json.dump(), "again"), "again")) !=
      profile_hash(profile)) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  gantry::cost::Profile profile;
  try {
    profile = gantry::cost::profile_from_json(gantry::base::parse_json(text, "fuzz"), "fuzz");
  } catch (const gantry::base::InputError&) {
    return 0;
  }
  use(profile);  // an accepted profile must not be refused any more
  return 0;
}
