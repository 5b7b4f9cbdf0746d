#include "gantry/measure/timing.h"

#include <algorithm>
#include <cmath>

#include "gantry/base/check.h"
#include "gantry/base/interrupt.h"
#include "gantry/base/timer.h"

namespace gantry::measure {

Timing summarise(std::vector<double> seconds) {
  Timing timing{.median_s = median(seconds), .runs = static_cast<int>(seconds.size())};
  for (double& value : seconds) value = std::abs(value - timing.median_s);
  const double deviation = median(std::move(seconds));
  timing.spread = timing.median_s > 0 ? deviation / timing.median_s : 0;
  return timing;
}

PassTiming repeat(const std::function<PassSeconds()>& pass, const TimingOptions& options) {
  std::vector<double> forward, backward;
  check_interrupted();
  pass();  // pages, packed weights, threads
  const base::Timer spent;
  for (int run = 0; run < options.most_runs && (run < options.least_runs || spent.seconds() < options.budget_s);
       ++run) {
    check_interrupted();
    const PassSeconds seconds = pass();
    forward.push_back(seconds.forward_s);
    backward.push_back(seconds.backward_s);
  }
  return {summarise(std::move(forward)), summarise(std::move(backward))};
}

Timing repeat_seconds(const std::function<double()>& run, const TimingOptions& options) {
  return repeat([&] { return PassSeconds{run(), 0}; }, options).forward;
}

double seconds_of(const std::function<void()>& body) {
  const base::Timer timer;
  body();
  return timer.seconds();
}

void check_interrupted() {
  if (base::interrupted()) throw base::Interrupted("interrupted; nothing was written");
}

}  // namespace gantry::measure
