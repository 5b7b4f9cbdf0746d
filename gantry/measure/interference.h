#pragma once
// How compute, a collective and copies in and out slow each other down when they run together on this machine.
#include <functional>

#include "gantry/cost/interference.h"
#include "gantry/measure/group.h"

namespace gantry::measure {

struct InterferenceOptions {
  double short_s = 6e-3;  ///< each channel's work: none, about so long alone, or the long one
  double long_s = 18e-3;
  int repeats = 5;  ///< of every combination; the medians count
};

struct MeasuredInterference {
  std::vector<cost::OverlapSample> samples;  ///< combinations of two channels and more
  cost::Factors factors;                     ///< fitted to all samples
  double residual = 0;                       ///< mean relative error on them
  double held_out_error = 0;                 ///< fitted to one half of the samples, on the other half
  double sum_error = 0;                      ///< of adding the channels' times up, for comparison
  double max_error = 0;                      ///< of perfect overlap
};

/// Products of matrices (this process's threads), all-gathers, copies in and copies out: all combinations of {none,
/// short, long}, in rounds, so that what the machine does meanwhile hits all of them. Channels start together, each in
/// its thread. Without `world` no collective runs, and the factors of its sets stay 1. Every rank calls it with the
/// same options; only rank 0's result is filled. `before` hears of each round.
MeasuredInterference measure_interference(Group* world, const InterferenceOptions& options,
                                          const std::function<void(int round)>& before);

}  // namespace gantry::measure
