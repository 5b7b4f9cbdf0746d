#pragma once
// Timing of arms in turns, in this process.
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace gantry::cli::layers_bench {

struct Arm {
  std::string name;
  std::function<void()> run;
};

/// Median seconds of one run of each arm. A round gives every arm in turn a share of time (as many runs as fit into
/// `share_s`, at least one); one round more warms up. base::Interrupted after SIGINT.
std::vector<double> median_seconds(const std::vector<Arm>& arms, std::int64_t rounds, double share_s = 0.2);

/// Within its life, freed memory of any size stays with the process, so that no arm faults in fresh pages each run:
/// these operators write tensors larger than what the C allocator would keep.
class KeepPages {
 public:
  KeepPages();
  ~KeepPages();
  KeepPages(const KeepPages&) = delete;
  KeepPages& operator=(const KeepPages&) = delete;
};

}  // namespace gantry::cli::layers_bench
