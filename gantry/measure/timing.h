#pragma once
// Repeated timing on a machine that others use too: medians, and a spread that says how far to trust them.
#include <functional>
#include <vector>

#include "gantry/base/statistics.h"

namespace gantry::measure {

struct TimingOptions {
  double budget_s = 0.5;  ///< repeats until this is spent ...
  int least_runs = 3;     ///< ... but at least and at most so often, after one run that does not count
  int most_runs = 40;
};

struct Timing {
  double median_s = 0;
  double spread = 0;  ///< median absolute deviation over the median; 0 for one run
  int runs = 0;
};

/// Of at least one run.
Timing summarise(std::vector<double> seconds);
using base::median;

/// A run that reports the seconds of its two halves itself: what it prepares and cleans up is not timed.
struct PassSeconds {
  double forward_s = 0;
  double backward_s = 0;
};
struct PassTiming {
  Timing forward;
  Timing backward;
};
PassTiming repeat(const std::function<PassSeconds()>& pass, const TimingOptions& options);
/// The same for one number a run.
Timing repeat_seconds(const std::function<double()>& run, const TimingOptions& options);

/// Seconds that `body` takes.
double seconds_of(const std::function<void()>& body);

/// Interrupted after Ctrl-C or SIGTERM; called between runs.
void check_interrupted();

}  // namespace gantry::measure
