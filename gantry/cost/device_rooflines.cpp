#include "gantry/cost/device_rooflines.h"

#include <algorithm>
#include <array>

#include "gantry/base/check.h"

namespace gantry::cost {
namespace {

constexpr double kSheetMatrixShare = 0.6;
constexpr double kSheetBandwidthShare = 0.8;
constexpr double kFlashForwardShare = 0.75;
constexpr double kFlashBackwardShare = 0.6;
constexpr double kLaunchS = 5e-6;
constexpr double kMostOverSheet = 1.2;

// Faster than any memory: such an entry moved nothing. No bandwidth of a device is near.
constexpr double kIdleBytesPerS = 2e13;
constexpr double kIdleOverSheet = 20;

constexpr std::array<std::string_view, 8> kStreaming = {"norm",    "activation", "gated_activation",  "residual_add",
                                                        "dropout", "rope",       "attention_softmax", "accumulate"};

bool is_dropout(std::string_view op) { return op.starts_with("dropout") || op == "attention_dropout"; }

std::vector<RooflineSample> samples_of(std::string_view op, const std::vector<const OperatorTime*>& times,
                                       int element_bytes, bool backward) {
  std::vector<RooflineSample> samples;
  for (const OperatorTime* time : times) {
    const OperatorWork work = operator_work(op, time->sizes, element_bytes);
    const double seconds = backward ? time->backward_s : time->forward_s;
    if (seconds > 0) samples.push_back({backward ? work.backward : work.forward, seconds});
  }
  return samples;
}

bool idle(const std::vector<RooflineSample>& samples, double sheet_bytes_per_s) {
  const double limit = sheet_bytes_per_s > 0 ? kIdleOverSheet * sheet_bytes_per_s : kIdleBytesPerS;
  return std::ranges::any_of(samples, [&](const RooflineSample& s) { return s.work.bytes / s.seconds > limit; });
}

// A bound that no sample shows: what is usual on the device, but never slower than a sample proves.
void fill(Roofline& roofline, const std::vector<RooflineSample>& samples, double usual_rate, double usual_bandwidth) {
  for (const RooflineSample& sample : samples) {
    if (usual_rate > 0) usual_rate = std::max(usual_rate, sample.work.flops / sample.seconds);
    if (usual_bandwidth > 0) usual_bandwidth = std::max(usual_bandwidth, sample.work.bytes / sample.seconds);
  }
  if (roofline.flops_per_s == 0) roofline.flops_per_s = usual_rate;
  if (roofline.bytes_per_s == 0) roofline.bytes_per_s = usual_bandwidth;
}

}  // namespace

DeviceRooflines::DeviceRooflines(const Profile& profile, std::string_view dtype)
    : profile_(profile), dtype_(dtype), element_bytes_(dtype == "fp32" ? 4 : 2) {
  GANTRY_CHECK(dtype == "fp16" || dtype == "bf16" || dtype == "fp32", "dtype '{}' is not one of fp16, bf16, fp32",
               dtype);
  if (dtype != "fp32") sibling_ = dtype == "fp16" ? "bf16" : "fp16";
  std::map<std::string_view, std::array<std::vector<const OperatorTime*>, 2>> by_op;
  for (const OperatorTime& time : profile.operators) {
    if (time.dtype == dtype_) by_op[time.op][0].push_back(&time);
    if (time.dtype == sibling_) by_op[time.op][1].push_back(&time);
  }
  for (const auto& [op, times] : by_op) fit(op, times[times[0].empty() ? 1 : 0]);
  take_median_bandwidth();
  if (fits_.contains("linear")) fill_bounds("linear", by_op["linear"][by_op["linear"][0].empty() ? 1 : 0]);
  for (const auto& [op, times] : by_op) {
    if (op != "linear") fill_bounds(op, times[times[0].empty() ? 1 : 0]);
  }
}

void DeviceRooflines::fit(std::string_view op, const std::vector<const OperatorTime*>& times) {
  const RooflineLimits limits{kMostOverSheet * sheet_flops_per_s(), kMostOverSheet * profile_.memory_bytes_per_s};
  const auto forward = samples_of(op, times, element_bytes_, false);
  const auto backward = samples_of(op, times, element_bytes_, true);
  RooflineFit result{.op = std::string(op), .count = static_cast<int>(times.size())};
  if (idle(forward, profile_.memory_bytes_per_s)) {
    if (is_dropout(op)) return;  // measured at rate 0, where nothing is dropped
    std::vector<double> seconds;
    for (const RooflineSample& sample : forward) seconds.push_back(sample.seconds);
    std::ranges::sort(seconds);
    result.forward.launch_s = seconds[seconds.size() / 2];
  } else {
    result.forward = fit_roofline(forward, limits);
  }
  result.backward = fit_roofline(backward, limits);
  fits_.emplace(op, std::move(result));
}

void DeviceRooflines::fill_bounds(std::string_view op, const std::vector<const OperatorTime*>& times) {
  const auto found = fits_.find(op);
  if (found == fits_.end()) return;
  RooflineFit& fit = found->second;
  const auto forward = samples_of(op, times, element_bytes_, false);
  const auto backward = samples_of(op, times, element_bytes_, true);
  const bool matrix = is_matrix_operator(op);
  if (!idle(forward, profile_.memory_bytes_per_s)) {
    fill(fit.forward, forward, matrix ? rate(op, false).value : 0, bandwidth().value);
  }
  fill(fit.backward, backward, matrix ? rate(op, true).value : 0, bandwidth().value);
  fit.forward_error = mean_relative_error(fit.forward, forward);
  fit.backward_error = mean_relative_error(fit.backward, backward);
}

void DeviceRooflines::take_median_bandwidth() {
  std::vector<double> found;
  for (const std::string_view op : kStreaming) {
    const auto fit = fits_.find(op);
    if (fit == fits_.end()) continue;
    for (const Roofline& roofline : {fit->second.forward, fit->second.backward}) {
      if (roofline.bytes_per_s > 0) found.push_back(roofline.bytes_per_s);
    }
  }
  if (found.empty()) return;
  std::ranges::sort(found);
  median_bytes_per_s_ = (found[found.size() / 2] + found[(found.size() - 1) / 2]) / 2;
}

double DeviceRooflines::sheet_flops_per_s() const {
  for (const std::string& dtype : {dtype_, sibling_}) {
    const auto found = profile_.matrix_flops_per_s.find(dtype);
    if (found != profile_.matrix_flops_per_s.end()) return found->second;
  }
  return 0;
}

DeviceRooflines::Bound DeviceRooflines::bandwidth() const {
  if (median_bytes_per_s_ > 0) return {median_bytes_per_s_, Provenance::kRoofline};
  return {kSheetBandwidthShare * profile_.memory_bytes_per_s, Provenance::kDataSheet};
}

DeviceRooflines::Bound DeviceRooflines::rate(std::string_view op, bool backward) const {
  const double share = op != "attention_flash" ? 1 : backward ? kFlashBackwardShare : kFlashForwardShare;
  const auto linear = fits_.find("linear");
  if (linear != fits_.end()) {
    const Roofline& roofline = backward ? linear->second.backward : linear->second.forward;
    if (roofline.flops_per_s > 0) return {share * roofline.flops_per_s, Provenance::kRoofline};
  }
  return {share * kSheetMatrixShare * sheet_flops_per_s(), Provenance::kDataSheet};
}

OperatorRoofline DeviceRooflines::at(std::string_view op) const {
  if (const auto found = fits_.find(op); found != fits_.end()) {
    return {found->second.forward, found->second.backward, Provenance::kRoofline};
  }
  const Bound bytes = bandwidth();
  OperatorRoofline result{{kLaunchS, 0, bytes.value}, {kLaunchS, 0, bytes.value}, bytes.provenance};
  bool known = bytes.value > 0;
  if (is_matrix_operator(op)) {
    const Bound forward = rate(op, false);
    const Bound backward = rate(op, true);
    result.forward.flops_per_s = forward.value;
    result.backward.flops_per_s = backward.value;
    result.provenance = std::max({result.provenance, forward.provenance, backward.provenance});
    known = known && forward.value > 0 && backward.value > 0;
  }
  GANTRY_CHECK(known,
               "profile '{}': operator '{}' is not measured in {}, and there is nothing to estimate it from (like "
               "operators, or matrix_flops_per_s and memory_bytes_per_s of the data sheet); `gantry profile` on such a "
               "device measures it",
               profile_.name, op, dtype_);
  return result;
}

std::optional<DeviceRooflines::Hit> DeviceRooflines::find(std::string_view op,
                                                          const std::vector<std::int64_t>& sizes) const {
  if (!measured(op)) return std::nullopt;
  if (const OperatorTime* time = profile_.find_operator(op, dtype_, sizes)) return Hit{time, false};
  if (sibling_.empty()) return std::nullopt;
  if (const OperatorTime* time = profile_.find_operator(op, sibling_, sizes)) return Hit{time, true};
  return std::nullopt;
}

std::vector<RooflineFit> DeviceRooflines::fits() const {
  std::vector<RooflineFit> all;
  for (const auto& [op, fit] : fits_) all.push_back(fit);
  return all;
}

double DeviceRooflines::stream_bytes_per_s() const { return at("accumulate").forward.bytes_per_s; }

Provenance DeviceRooflines::stream_provenance() const { return at("accumulate").provenance; }

}  // namespace gantry::cost
