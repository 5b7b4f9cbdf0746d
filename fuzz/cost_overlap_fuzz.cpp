// Overlap measurements: any text is refused or gives samples of finite, usable times, which a short fit survives.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "gantry/base/check.h"
#include "gantry/cost/overlap_measurements.h"

namespace {

gantry::cost::Profile links() {
  gantry::cost::Profile profile;
  const gantry::cost::Link link{.gb_per_s = 4, .latency_s = 0.0003};
  profile.collectives = {{.per_node = 2, .nodes = 1, .link = link}, {.per_node = 1, .nodes = 2, .link = link}};
  profile.copy_in = profile.copy_out = link;
  return profile;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gantry::cost;
  static const Profile profile = links();
  OverlapMeasurements measured;
  try {
    measured = parse_overlap_measurements({reinterpret_cast<const char*>(data), size}, "fuzz", profile);
  } catch (const gantry::base::InputError&) {
    return 0;
  }
  const int left_out = measured.noisy + measured.single + measured.without_compute;
  if (measured.rows != static_cast<int>(measured.samples.size()) + left_out) std::abort();
  for (const auto& sample : measured.samples) {
    const double predicted_s = overlap_s(sample.alone_s, Factors());
    if (!(std::isfinite(predicted_s) && predicted_s >= 0 && sample.together_s > 0)) std::abort();
  }
  if (measured.samples.size() > 100) return 0;
  for (const double f : fit_factors(measured.samples, Factors(), {.steps = 20}).f) {
    if (!(f >= 1 && f <= 50)) std::abort();
  }
  return 0;
}
