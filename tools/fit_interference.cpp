// Fits interference factors to overlap measurements; a step of tools/make_profiles.py.
// Usage: gantry_fit_interference PROFILE MEASUREMENTS.json: links and first factors of the profile; the list
// "interference" of a profile file goes to stdout, a summary to stderr.
#include <fmt/format.h>

#include <cstdio>

#include "gantry/base/check.h"
#include "gantry/cost/interference_report.h"
#include "gantry/cost/overlap_measurements.h"
#include "gantry/cost/profile.h"

int main(int argc, char** argv) {
  using namespace gantry;
  if (argc != 3) {
    fmt::print(stderr, "usage: gantry_fit_interference PROFILE MEASUREMENTS.json\n");
    return 2;
  }
  try {
    cost::Profile profile = cost::load_profile(argv[1]);
    const cost::OverlapMeasurements measured = cost::read_overlap_measurements(argv[2], profile);
    fmt::print(stderr, "{}: {} samples, error of the profile's factors {:.4f}\n", argv[2], measured.samples.size(),
               cost::mean_relative_error(measured.samples, profile.factors(0, 0)));
    profile.interference = cost::fit_shape_factors(measured.samples, profile.factors(0, 0));
    for (const cost::ShapeFactors& set : profile.interference) {
      fmt::print(stderr, "  {} on each of {} nodes: {:.4f}\n", set.per_node, set.nodes, set.residual);
    }
    fmt::print("{}\n", cost::profile_to_json(profile)["interference"].dump());
  } catch (const base::Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
  return 0;
}
