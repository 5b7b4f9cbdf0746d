#include "gantry/cost/overlap_measurements.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "gantry/base/check.h"
#include "gantry/base/file.h"
#include "gantry/base/json.h"
#include "gantry/cost/collectives.h"

namespace gantry::cost {
namespace {

constexpr double kMib = 1024.0 * 1024.0;
constexpr double kMaxDeviation = 0.1;  ///< of the repetitions, relative
constexpr std::uint64_t kMaxFileBytes = std::uint64_t{64} << 20;

struct Row {
  double compute_n = 0;
  double gather_bytes = 0, copy_in_bytes = 0, copy_out_bytes = 0;
  double latency_s = 0;
  double deviation = 0;
  int world = 1;
  GroupShape group;

  bool copies_nothing() const { return gather_bytes == 0 && copy_in_bytes == 0 && copy_out_bytes == 0; }
};

struct Range {
  double least, most;
  std::string_view unit;  ///< follows the number
};

double number(const base::Json& row, std::string_view key, std::string_view source, Range range) {
  const auto text = base::json_get<std::string>(row, key, source);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view rest(end, static_cast<std::size_t>(text.data() + text.size() - end));
  GANTRY_CHECK(error == std::errc() && rest == range.unit && value >= range.least && value <= range.most,
               "{}: '{}' should be a number of {} to {}{}, found \"{:.40}\"", source, key, range.least, range.most,
               range.unit.empty() ? std::string() : fmt::format(" followed by \"{}\"", range.unit), text);
  return value;
}

int whole_number(const base::Json& row, std::string_view key, std::string_view source) {
  const double value = number(row, key, source, {1, 1 << 20, ""});
  GANTRY_CHECK(std::trunc(value) == value, "{}: '{}' should be a whole number, found {}", source, key, value);
  return static_cast<int>(value);
}

Row read_row(const base::Json& json, const std::string& source) {
  constexpr Range kMegabytes{0, 1 << 24, ""};
  Row row;
  row.compute_n = number(json, "compute_n", source, {0, 1e12, ""});
  row.gather_bytes = number(json, "gpu_to_gpu_mbytes", source, kMegabytes) * kMib;
  row.copy_in_bytes = number(json, "cpu_to_gpu_mbytes", source, kMegabytes) * kMib;
  row.copy_out_bytes = number(json, "gpu_to_cpu_mbytes", source, kMegabytes) * kMib;
  row.latency_s = number(json, "latency", source, {1e-6, 1e9, " ms"}) / 1e3;
  row.deviation = number(json, "std/mean", source, {0, 1e6, ""});
  row.world = whole_number(json, "world_size", source);
  row.group.per_node = whole_number(json, "intra_group_size", source);
  row.group.nodes = whole_number(json, "inter_group_size", source);
  GANTRY_CHECK(static_cast<std::int64_t>(row.group.per_node) * row.group.nodes <= row.world,
               "{}: a group of {} nodes x {} devices does not fit into 'world_size' {}", source, row.group.nodes,
               row.group.per_node, row.world);
  return row;
}

/// Seconds of products alone.
class ComputeTimes {
 public:
  explicit ComputeTimes(const std::vector<Row>& rows) {
    for (const Row& row : rows) {
      if (row.compute_n == 0 || !row.copies_nothing() || row.deviation > kMaxDeviation) continue;
      own_[key(row)] = row.latency_s;
      auto& [sum, count] = any_[row.compute_n];
      sum += row.latency_s;
      ++count;
    }
  }

  enum class Found { kOwn, kStandIn, kNone };
  std::pair<Found, double> find(const Row& row) const {
    if (row.compute_n == 0) return {Found::kOwn, 0.0};
    if (const auto found = own_.find(key(row)); found != own_.end()) return {Found::kOwn, found->second};
    const auto found = any_.find(row.compute_n);
    if (found == any_.end()) return {Found::kNone, 0.0};
    return {Found::kStandIn, found->second.first / found->second.second};
  }

 private:
  using Key = std::tuple<double, int, int, int>;
  static Key key(const Row& row) { return {row.compute_n, row.world, row.group.per_node, row.group.nodes}; }

  std::map<Key, double> own_;
  std::map<double, std::pair<double, int>> any_;
};

void check_link(const Link& link, std::string_view name, const Profile& profile) {
  GANTRY_CHECK(link.gb_per_s > 0, "Overlap measurements need the stand-alone link '{}': profile {} holds none", name,
               profile.name);
}

}  // namespace

OverlapMeasurements parse_overlap_measurements(std::string_view text, std::string_view source, const Profile& links) {
  check_link(links.copy_in, "copy_in", links);
  check_link(links.copy_out, "copy_out", links);
  const base::Json json = base::parse_json(text, source);
  GANTRY_CHECK(json.is_object() && json.size() == 1 && json.begin()->is_object(),
               "{}: expected an object with one machine, whose value holds the measurements", source);
  OverlapMeasurements result;
  result.machine = json.begin().key();
  std::vector<Row> rows;
  for (const auto& [name, row] : json.begin()->items()) {
    rows.push_back(read_row(row, fmt::format("{}: row '{:.100}'", source, name)));
  }
  result.rows = static_cast<int>(rows.size());
  const ComputeTimes compute_times(rows);
  for (const Row& row : rows) {
    const int busy = (row.compute_n > 0) + (row.gather_bytes > 0) + (row.copy_in_bytes > 0) + (row.copy_out_bytes > 0);
    const auto [found, compute_s] = compute_times.find(row);
    if (busy < 2) {
      ++result.single;
    } else if (row.deviation > kMaxDeviation) {
      ++result.noisy;
    } else if (found == ComputeTimes::Found::kNone) {
      ++result.without_compute;
    } else {
      result.stand_ins += found == ComputeTimes::Found::kStandIn;
      const double gather_s = collective_s(links, Collective::kAllGather, row.gather_bytes, row.group);
      result.samples.push_back({.alone_s = {compute_s, gather_s, copy_s(links.copy_in, row.copy_in_bytes),
                                            copy_s(links.copy_out, row.copy_out_bytes)},
                                .together_s = row.latency_s,
                                .per_node = row.group.per_node,
                                .nodes = row.group.nodes});
    }
  }
  return result;
}

OverlapMeasurements read_overlap_measurements(const std::filesystem::path& path, const Profile& links) {
  return parse_overlap_measurements(base::read_text_file(path, kMaxFileBytes), path.string(), links);
}

}  // namespace gantry::cost
