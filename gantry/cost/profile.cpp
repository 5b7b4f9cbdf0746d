#include "gantry/cost/profile.h"

#include <fmt/ranges.h>

#include <cstdlib>

#include "gantry/base/check.h"
#include "gantry/base/env.h"
#include "gantry/base/file.h"
#include "gantry/base/hash.h"
#include "gantry/cost/shipped_profiles.h"

namespace gantry::cost {
namespace {

struct OperatorKind {
  std::string_view name;
  std::vector<std::string_view> sizes;
};

const std::vector<OperatorKind>& operator_kinds() {
  using Names = std::vector<std::string_view>;
  static const Names elements{"elements"};
  static const Names attention{"batch", "heads", "kv_heads", "sequence", "head_dim"};
  static const std::vector<OperatorKind> kinds{
      {"linear", {"rows", "in", "out"}},
      {"norm", {"rows", "width"}},
      {"activation", elements},
      {"gated_activation", elements},
      {"residual_add", elements},
      {"dropout", elements},
      {"dropout_functional", elements},
      {"attention_flash", attention},
      {"attention_scores", attention},
      {"attention_softmax", attention},
      {"attention_values", attention},
      {"attention_dropout", attention},
      {"attention_transpose_1", attention},
      {"attention_transpose_2", attention},
      {"attention_transpose_3", attention},
      {"rope", attention},
      {"embedding", {"rows", "width", "vocab"}},
      {"cross_entropy", {"rows", "vocab"}},
      {"mean", {"rows"}},
      {"cast", {"rows", "vocab"}},
      {"accumulate", elements},
  };
  return kinds;
}

}  // namespace

std::string_view provenance_name(Provenance provenance) {
  switch (provenance) {
    case Provenance::kMeasured: return "measured";
    case Provenance::kFitted: return "fitted";
    case Provenance::kRoofline: return "roofline";
    case Provenance::kDataSheet: return "data sheet";
  }
  GANTRY_UNREACHABLE();
}

std::vector<std::string_view> operator_size_names(std::string_view op) {
  for (const OperatorKind& kind : operator_kinds()) {
    if (kind.name == op) return kind.sizes;
  }
  return {};
}

std::vector<std::string_view> operator_names() {
  std::vector<std::string_view> names;
  for (const OperatorKind& kind : operator_kinds()) names.push_back(kind.name);
  return names;
}

const OperatorTime* Profile::find_operator(std::string_view op, std::string_view dtype,
                                           const std::vector<std::int64_t>& sizes) const {
  for (const OperatorTime& time : operators) {
    if (time.sizes == sizes && time.op == op && time.dtype == dtype) return &time;
  }
  return nullptr;
}

const Factors& Profile::factors(int per_node, int nodes) const {
  static const Factors identity;
  const Factors* shared = &identity;
  for (const ShapeFactors& entry : interference) {
    if (entry.per_node == per_node && entry.nodes == nodes) return entry.factors;
    if (entry.per_node == 0 && entry.nodes == 0) shared = &entry.factors;
  }
  return *shared;
}

std::string profile_hash(const Profile& profile) { return base::content_hash(profile_to_json(profile).dump()); }

std::vector<std::string> shipped_profile_names() {
  std::vector<std::string> names;
  for (const ShippedProfile& shipped : shipped_profiles()) names.emplace_back(shipped.name);
  return names;
}

std::filesystem::path user_profile_path() {
  if (const auto cache = base::env("XDG_CACHE_HOME")) return std::filesystem::path(*cache) / "gantry" / "profile.json";
  const auto home = base::env("HOME");
  GANTRY_CHECK(home.has_value(), "the profile of this machine has no place: set HOME or XDG_CACHE_HOME");
  return std::filesystem::path(*home) / ".cache" / "gantry" / "profile.json";
}

Profile load_profile(std::string_view name_or_path) {
  constexpr std::uint64_t kMostBytes = std::uint64_t{64} << 20;
  for (const ShippedProfile& shipped : shipped_profiles()) {
    if (shipped.name == name_or_path) {
      return profile_from_json(base::parse_json(shipped.json, shipped.name), shipped.name);
    }
  }
  std::filesystem::path path(name_or_path);
  std::error_code ignored;
  if (name_or_path == "this") {
    path = user_profile_path();
    GANTRY_CHECK(std::filesystem::exists(path, ignored),
                 "this machine has no profile yet ({} is missing): run `gantry profile` first", path.string());
  }
  GANTRY_CHECK(std::filesystem::exists(path, ignored), "profile '{}' is neither a file nor one of {}, this",
               name_or_path, fmt::join(shipped_profile_names(), ", "));
  return profile_from_json(base::read_json_file(path, kMostBytes), path.string());
}

}  // namespace gantry::cost
