#include "gantry/cli/layers_bench/timing.h"

#include <malloc.h>

#include <algorithm>

#include "gantry/base/check.h"
#include "gantry/base/interrupt.h"
#include "gantry/base/statistics.h"
#include "gantry/base/timer.h"

namespace gantry::cli::layers_bench {
namespace {

constexpr int kDefaultMmapMax = 65536;

}  // namespace

std::vector<double> median_seconds(const std::vector<Arm>& arms, std::int64_t rounds, double share_s) {
  std::vector<std::vector<double>> seconds(arms.size());
  std::vector<std::int64_t> repeats(arms.size(), 1);
  for (std::int64_t round = 0; round <= rounds; ++round) {
    for (std::size_t i = 0; i < arms.size(); ++i) {
      for (std::int64_t repeat = 0; repeat < repeats[i]; ++repeat) {
        if (base::interrupted()) throw base::Interrupted("interrupted");
        const base::Timer timer;
        arms[i].run();
        seconds[i].push_back(timer.seconds());
      }
      if (round > 0) continue;
      // The first run also allocates and starts threads; the share counts from a second one.
      const base::Timer timer;
      arms[i].run();
      repeats[i] = std::clamp<std::int64_t>(static_cast<std::int64_t>(share_s / timer.seconds()), 1, 100);
      seconds[i].clear();
    }
  }
  std::vector<double> medians;
  for (const auto& column : seconds) medians.push_back(base::median(column));
  return medians;
}

KeepPages::KeepPages() { ::mallopt(M_MMAP_MAX, 0); }

KeepPages::~KeepPages() {
  ::mallopt(M_MMAP_MAX, kDefaultMmapMax);
  ::malloc_trim(0);
}

}  // namespace gantry::cli::layers_bench
