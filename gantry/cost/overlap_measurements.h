#pragma once
// Reader of interference campaigns in the format of Mist's artifact: a JSON object with one machine, whose value holds
// one object a measurement. Fields used (all are text): compute_n (columns of a 4096 x 4096 x n product; 0: none),
// gpu_to_gpu_mbytes (full tensor of an all-gather), cpu_to_gpu_mbytes, gpu_to_cpu_mbytes (pinned copies, MiB),
// latency ("32.92 ms", everything together), std/mean, world_size, intra_group_size, inter_group_size. Other fields and
// the names of the rows are ignored.
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/cost/interference.h"
#include "gantry/cost/profile.h"

namespace gantry::cost {

struct OverlapMeasurements {
  std::string machine;
  std::vector<OverlapSample> samples;  ///< rows with two or more busy channels, in the order of the rows' names
  int rows = 0;                        ///< in the file
  int noisy = 0;                       ///< left out: std/mean > 0.1
  int single = 0;                      ///< left out: fewer than two busy channels
  int without_compute = 0;             ///< left out: no row measured that product alone
  int stand_ins = 0;                   ///< kept with the product's time at other group shapes (mean)
};

/// Stand-alone times of collectives and copies come from the links of `links` (collectives, copy_in, copy_out), those
/// of products from the row that measured the product alone with the same world and group shape, else from the mean of
/// the other shapes' such rows. InputError names the row and field that is missing or absurd.
OverlapMeasurements read_overlap_measurements(const std::filesystem::path& path, const Profile& links);
OverlapMeasurements parse_overlap_measurements(std::string_view text, std::string_view source, const Profile& links);

}  // namespace gantry::cost
