#pragma once
// Rooflines: what an operator costs at sizes that nobody measured. Williams, Waterman and Patterson, CACM 2009, with a
// floor: seconds = max(launch, flops / rate, bytes / bandwidth). The floor is a maximum, not a sum, because a device's
// launches run ahead of its work: Mist's layer norm on an L4 takes 0.53 to 0.56 ms whether it moves 17 or 134 MB.
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace gantry::cost {

struct Work {
  double flops = 0;  ///< of matrix products; element-wise work is bound by bytes
  double bytes = 0;  ///< read and written
};

struct OperatorWork {
  Work forward;
  Work backward;
};

/// Work of an operator of profile.h at its `sizes`, with activations of `element_bytes`. Attention is causal: a flash
/// kernel skips half of the scores, the separate operators do not. InputError for an unknown operator or a wrong number
/// of sizes.
OperatorWork operator_work(std::string_view op, const std::vector<std::int64_t>& sizes, int element_bytes);

/// Whether an operator multiplies matrices.
bool is_matrix_operator(std::string_view op);

struct Roofline {
  double launch_s = 0;
  double flops_per_s = 0;  ///< 0: no bound known
  double bytes_per_s = 0;  ///< 0: no bound known
  double seconds(const Work& work) const;
};

struct RooflineSample {
  Work work;
  double seconds = 0;  ///< above 0
};

/// What a device can do at most, 0 where unknown. Samples that a cache served would make a fit faster than that.
struct RooflineLimits {
  double flops_per_s = 0;
  double bytes_per_s = 0;
};

/// The roofline of least relative error, each sample weighted by the root of its seconds, as long operators matter more
/// and short ones are noisy. A launch floor needs two samples that lie on it; a bound that no sample
/// shows stays 0.
Roofline fit_roofline(std::span<const RooflineSample> samples, const RooflineLimits& limits);

/// Mean of |predicted - measured| / measured; 0 without samples.
double mean_relative_error(const Roofline& roofline, std::span<const RooflineSample> samples);

}  // namespace gantry::cost
