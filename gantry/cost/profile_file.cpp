// The JSON form of profiles (docs/plan.md).
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "gantry/base/check.h"
#include "gantry/cost/field_reader.h"
#include "gantry/cost/profile.h"

namespace gantry::cost {
namespace {

constexpr int kProfileSchema = 1;
constexpr std::size_t kMostOperators = 200'000;
constexpr std::size_t kMostShapes = 4096;
constexpr std::size_t kLongestText = 4096;
constexpr IntegerRange kSizes{1, std::int64_t{1} << 48};
constexpr IntegerRange kMemory{1 << 20, std::int64_t{1} << 52};
constexpr NumberRange kSeconds{0, 1e5};
constexpr NumberRange kRate{1e-6, 1e7};  // GiB/s
constexpr NumberRange kPeak{1e6, 1e19};  // FLOP/s and bytes/s
constexpr NumberRange kSlowdown{1, 1e4};
constexpr NumberRange kResidual{0, 1e3};
constexpr std::string_view kDtypes[] = {"fp16", "bf16", "fp32"};
constexpr Provenance kProvenances[] = {Provenance::kMeasured, Provenance::kFitted, Provenance::kRoofline,
                                       Provenance::kDataSheet};
/// Sets of busy channels in the order of Factors, a letter a factor.
constexpr std::string_view kChannelSets[] = {"CGHO", "CGH", "CGO", "CHO", "GHO", "CG", "CH", "CO", "GH", "GO", "HO"};

std::string read_dtype(const FieldReader& fields) {
  std::string dtype = fields.text("dtype", 16);
  GANTRY_CHECK(std::ranges::find(kDtypes, dtype) != std::end(kDtypes), "{}: 'dtype' must be one of {}, found '{}'",
               fields.place(), fmt::join(kDtypes, ", "), dtype);
  return dtype;
}

Provenance read_provenance(const FieldReader& fields) {
  const std::string name = fields.text("provenance", 32);
  std::vector<std::string_view> names;
  for (const Provenance provenance : kProvenances) {
    if (provenance_name(provenance) == name) return provenance;
    names.push_back(provenance_name(provenance));
  }
  base::fail_input("{}: 'provenance' must be one of {}, found '{}'", fields.place(), fmt::join(names, ", "), name);
}

Link link_of(const FieldReader& fields) {
  Link link;
  link.gb_per_s = fields.number("gib_per_s", kRate);
  link.latency_s = fields.number("latency_s", kSeconds);
  link.residual = fields.number_or("residual", 0, kResidual);
  link.provenance = read_provenance(fields);
  return link;
}

Link read_link(const base::Json& json, std::string_view source, std::string path) {
  return link_of(FieldReader(json, source, std::move(path), {"gib_per_s", "latency_s", "residual", "provenance"}));
}

std::vector<CollectiveLink> read_collectives(const FieldReader& file) {
  std::vector<CollectiveLink> links;
  std::set<std::pair<int, int>> seen;
  for (const base::Json& json : file.list("collectives", kMostShapes)) {
    const FieldReader fields(json, file.source(), file.inside("collectives", links.size()),
                             {"per_node", "nodes", "gib_per_s", "latency_s", "residual", "provenance"});
    CollectiveLink link;
    link.per_node = static_cast<int>(fields.integer("per_node", {1, 1024}));
    link.nodes = static_cast<int>(fields.integer("nodes", {1, 1 << 20}));
    GANTRY_CHECK(link.per_node > 1 || link.nodes > 1, "{}: a group of one device needs no link; leave the entry out",
                 fields.place());
    GANTRY_CHECK(seen.emplace(link.per_node, link.nodes).second, "{}: per_node {} on {} nodes stands there already",
                 fields.place(), link.per_node, link.nodes);
    link.link = link_of(fields);
    links.push_back(link);
  }
  return links;
}

Factors read_factors(const base::Json& json, std::string_view source, std::string path) {
  const FieldReader fields(json, source, std::move(path),
                           {"CGHO", "CGH", "CGO", "CHO", "GHO", "CG", "CH", "CO", "GH", "GO", "HO"});
  Factors factors;
  std::size_t next = 0;
  for (const std::string_view set : kChannelSets) {
    const auto values = base::json_get<std::vector<double>>(json, set, fields.place());
    GANTRY_CHECK(values.size() == set.size(), "{}: '{}' must have a factor for each of its {} channels, found {}",
                 fields.place(), set, set.size(), values.size());
    for (const double value : values) {
      GANTRY_CHECK(value >= kSlowdown.least && value <= kSlowdown.most,
                   "{}: '{}' holds {}; a slowdown must be from {} to {}", fields.place(), set, value, kSlowdown.least,
                   kSlowdown.most);
      factors.f[next++] = value;
    }
  }
  return factors;
}

std::vector<ShapeFactors> read_interference(const FieldReader& file) {
  std::vector<ShapeFactors> sets;
  std::set<std::pair<int, int>> seen;
  if (!file.has("interference")) return sets;
  for (const base::Json& json : file.list("interference", kMostShapes)) {
    const FieldReader fields(json, file.source(), file.inside("interference", sets.size()),
                             {"per_node", "nodes", "residual", "factors"});
    ShapeFactors set;
    set.per_node = static_cast<int>(fields.integer("per_node", {0, 1024}));
    set.nodes = static_cast<int>(fields.integer("nodes", {0, 1 << 20}));
    GANTRY_CHECK((set.per_node == 0) == (set.nodes == 0),
                 "{}: 'per_node' and 'nodes' are both 0 (any group) or both at least 1", fields.place());
    GANTRY_CHECK(seen.emplace(set.per_node, set.nodes).second, "{}: per_node {} on {} nodes stands there already",
                 fields.place(), set.per_node, set.nodes);
    set.residual = fields.number_or("residual", 0, kResidual);
    set.factors = read_factors(fields.at("factors"), file.source(), fields.inside("factors"));
    sets.push_back(set);
  }
  return sets;
}

/// "sizes" as an object, in the order of operator_size_names().
std::vector<std::int64_t> read_sizes(const FieldReader& entry, const std::string& op) {
  const auto names = operator_size_names(op);
  GANTRY_CHECK(!names.empty(), "{}: unknown operator '{}'; the operators are {}", entry.place(), op,
               fmt::join(operator_names(), ", "));
  const FieldReader fields(entry.at("sizes"), entry.source(), entry.inside("sizes"), names);
  std::vector<std::int64_t> sizes;
  for (const std::string_view name : names) sizes.push_back(fields.integer(name, kSizes));
  return sizes;
}

OperatorTime read_operator(const FieldReader& fields) {
  OperatorTime time;
  time.op = fields.text("op", 64);
  time.dtype = read_dtype(fields);
  time.sizes = read_sizes(fields, time.op);
  time.forward_s = fields.number("forward_s", kSeconds);
  GANTRY_CHECK(time.forward_s > 0, "{}: 'forward_s' must be more than 0", fields.place());
  time.backward_s = fields.number_or("backward_s", 0, kSeconds);
  return time;
}

std::vector<OperatorTime> read_operators(const FieldReader& file) {
  std::vector<OperatorTime> times;
  std::set<std::tuple<std::string, std::string, std::vector<std::int64_t>>> seen;
  if (!file.has("operators")) return times;
  for (const base::Json& json : file.list("operators", kMostOperators)) {
    const FieldReader fields(json, file.source(), file.inside("operators", times.size()),
                             {"op", "dtype", "sizes", "forward_s", "backward_s"});
    times.push_back(read_operator(fields));
    const OperatorTime& time = times.back();
    GANTRY_CHECK(seen.emplace(time.op, time.dtype, time.sizes).second,
                 "{}: the same operator and sizes stand there already", fields.place());
  }
  return times;
}

void read_peaks(Profile& profile, const FieldReader& file) {
  if (file.has("matrix_flops_per_s")) {
    const FieldReader peaks(file.at("matrix_flops_per_s"), file.source(), "matrix_flops_per_s",
                            {"fp16", "bf16", "fp32"});
    for (const std::string_view dtype : kDtypes) {
      if (peaks.has(dtype)) profile.matrix_flops_per_s.emplace(dtype, peaks.number(dtype, kPeak));
    }
  }
  profile.memory_bytes_per_s = file.number_or("memory_bytes_per_s", 0, kPeak);
  const bool priced =
      !profile.operators.empty() || (!profile.matrix_flops_per_s.empty() && profile.memory_bytes_per_s > 0);
  GANTRY_CHECK(priced,
               "{}: no way to price an operator: needs measured 'operators', or 'matrix_flops_per_s' and "
               "'memory_bytes_per_s'",
               file.place());
}

void read_copies(Profile& profile, const FieldReader& file) {
  const FieldReader copies(file.at("copies"), file.source(), "copies", {"in", "out"});
  profile.copy_in = read_link(copies.at("in"), file.source(), copies.inside("in"));
  profile.copy_out = read_link(copies.at("out"), file.source(), copies.inside("out"));
  if (!file.has("p2p")) return;
  const FieldReader p2p(file.at("p2p"), file.source(), "p2p", {"intra", "inter"});
  if (p2p.has("intra")) profile.p2p_intra = read_link(p2p.at("intra"), file.source(), p2p.inside("intra"));
  if (p2p.has("inter")) profile.p2p_inter = read_link(p2p.at("inter"), file.source(), p2p.inside("inter"));
}

void write_link(base::OrderedJson& json, const Link& link) {
  json["gib_per_s"] = link.gb_per_s;
  json["latency_s"] = link.latency_s;
  if (link.residual > 0) json["residual"] = link.residual;
  json["provenance"] = provenance_name(link.provenance);
}

base::OrderedJson factors_to_json(const Factors& factors) {
  auto json = base::OrderedJson::object();
  std::size_t next = 0;
  for (const std::string_view set : kChannelSets) {
    auto values = base::OrderedJson::array();
    for (std::size_t letter = 0; letter < set.size(); ++letter) values.push_back(factors.f[next++]);
    json[std::string(set)] = std::move(values);
  }
  return json;
}

base::OrderedJson operator_to_json(const OperatorTime& time) {
  base::OrderedJson json{{"op", time.op}, {"dtype", time.dtype}, {"sizes", base::OrderedJson::object()}};
  const auto names = operator_size_names(time.op);
  GANTRY_CHECK(names.size() == time.sizes.size(), "operator '{}': expected {} sizes, found {}", time.op, names.size(),
               time.sizes.size());
  for (std::size_t i = 0; i < names.size(); ++i) json["sizes"][std::string(names[i])] = time.sizes[i];
  json["forward_s"] = time.forward_s;
  json["backward_s"] = time.backward_s;
  return json;
}

void write_links(base::OrderedJson& json, const Profile& profile) {
  write_link(json["copies"]["in"], profile.copy_in);
  write_link(json["copies"]["out"], profile.copy_out);
  if (profile.p2p_intra) write_link(json["p2p"]["intra"], *profile.p2p_intra);
  if (profile.p2p_inter) write_link(json["p2p"]["inter"], *profile.p2p_inter);
  json["collectives"] = base::OrderedJson::array();
  for (const CollectiveLink& link : profile.collectives) {
    base::OrderedJson entry{{"per_node", link.per_node}, {"nodes", link.nodes}};
    write_link(entry, link.link);
    json["collectives"].push_back(std::move(entry));
  }
}

}  // namespace

Profile profile_from_json(const base::Json& json, std::string_view source) {
  GANTRY_CHECK(!json.is_object() || !json.contains("devices_per_node"),
               "{}: this is a cluster, where a profile was expected; a profile names no nodes", source);
  const FieldReader file(
      json, source, "",
      {"schema", "name", "device", "source", "device_memory_bytes", "memory_bytes_per_s", "matrix_flops_per_s",
       "host_update_elements_per_s", "copies", "p2p", "collectives", "interference", "operators"});
  check_schema(json, kProfileSchema, source);
  Profile profile;
  profile.name = file.text("name", kLongestText);
  check_name(profile.name, file.place());
  profile.device = file.text("device", kLongestText);
  profile.source = file.text("source", kLongestText);
  profile.device_memory_bytes = static_cast<std::uint64_t>(file.integer("device_memory_bytes", kMemory));
  profile.host_update_elements_per_s = file.number_or("host_update_elements_per_s", 0, {0, 1e18});
  read_copies(profile, file);
  profile.collectives = read_collectives(file);
  profile.interference = read_interference(file);
  profile.operators = read_operators(file);
  read_peaks(profile, file);
  return profile;
}

base::OrderedJson profile_to_json(const Profile& profile) {
  base::OrderedJson json{{"schema", kProfileSchema},
                         {"name", profile.name},
                         {"device", profile.device},
                         {"source", profile.source},
                         {"device_memory_bytes", profile.device_memory_bytes}};
  if (profile.memory_bytes_per_s > 0) json["memory_bytes_per_s"] = profile.memory_bytes_per_s;
  for (const auto& [dtype, peak] : profile.matrix_flops_per_s) json["matrix_flops_per_s"][dtype] = peak;
  if (profile.host_update_elements_per_s > 0) {
    json["host_update_elements_per_s"] = profile.host_update_elements_per_s;
  }
  write_links(json, profile);
  json["interference"] = base::OrderedJson::array();
  for (const ShapeFactors& set : profile.interference) {
    base::OrderedJson entry{{"per_node", set.per_node}, {"nodes", set.nodes}};
    if (set.residual > 0) entry["residual"] = set.residual;
    entry["factors"] = factors_to_json(set.factors);
    json["interference"].push_back(std::move(entry));
  }
  json["operators"] = base::OrderedJson::array();
  for (const OperatorTime& time : profile.operators) json["operators"].push_back(operator_to_json(time));
  return json;
}

}  // namespace gantry::cost
