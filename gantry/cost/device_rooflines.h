#pragma once
// The rooflines of a device: fitted to what its profile measured, borrowed from like operators for what it did not, and
// from the data sheet where nothing was measured.
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/cost/profile.h"
#include "gantry/cost/roofline.h"

namespace gantry::cost {

/// A fit and how well it hits its own samples.
struct RooflineFit {
  std::string op;
  int count = 0;             ///< measured entries
  double forward_error = 0;  ///< mean relative error
  double backward_error = 0;
  Roofline forward{};
  Roofline backward{};
};

struct OperatorRoofline {
  Roofline forward{};
  Roofline backward{};
  Provenance provenance = Provenance::kRoofline;
};

/// Without measurements of their own,
/// - element-wise operators run at the median bandwidth of the measured ones, else at 0.8 of the data sheet's;
/// - matrix products run at the fitted rate of linear, flash attention at 0.75 (forward) and 0.6 (backward) of it: the
///   shares that Mist's L4 shows; without linear at 0.6 of the data-sheet peak, flash attention at those shares of it;
/// - a launch takes 5 us.
/// A fit may not beat the data sheet by more than a fifth: small tensors that a cache served say nothing of large ones.
/// Measurements in bf16 stand in for fp16, and the reverse, where there are none in `dtype`.
class DeviceRooflines {
 public:
  DeviceRooflines(const Profile& profile, std::string_view dtype);

  /// InputError for an operator that is neither measured nor can be estimated; says how to measure it.
  OperatorRoofline at(std::string_view op) const;
  /// The entry of exactly these sizes, and whether it is in the other 16-bit type.
  struct Hit {
    const OperatorTime* time;
    bool other_dtype;
  };
  std::optional<Hit> find(std::string_view op, const std::vector<std::int64_t>& sizes) const;
  bool measured(std::string_view op) const { return fits_.contains(op); }
  std::vector<RooflineFit> fits() const;
  /// Bytes per second of a long element-wise pass.
  double stream_bytes_per_s() const;
  Provenance stream_provenance() const;
  int element_bytes() const { return element_bytes_; }

 private:
  void fit(std::string_view op, const std::vector<const OperatorTime*>& times);
  void fill_bounds(std::string_view op, const std::vector<const OperatorTime*>& times);
  void take_median_bandwidth();
  double sheet_flops_per_s() const;
  struct Bound {
    double value = 0;
    Provenance provenance = Provenance::kRoofline;
  };
  /// Value 0: unknown.
  Bound bandwidth() const;
  Bound rate(std::string_view op, bool backward) const;

  const Profile& profile_;
  std::string dtype_;
  std::string sibling_;  // the other 16-bit type; "" for fp32
  int element_bytes_ = 2;
  std::map<std::string, RooflineFit, std::less<>> fits_;
  double median_bytes_per_s_ = 0;
};

}  // namespace gantry::cost
