#pragma once
// A hardware profile: measured operator times, links, host copies and interference of one kind of device. A JSON file
// (docs/plan.md), made by `gantry profile` or shipped. Every number says where it came from.
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/base/json.h"
#include "gantry/cost/interference.h"

namespace gantry::cost {

/// Where a number came from, best first.
enum class Provenance : std::uint8_t { kMeasured, kFitted, kRoofline, kDataSheet };
std::string_view provenance_name(Provenance provenance);  ///< "measured", "fitted", "roofline", "data sheet"

/// One measured operator. `sizes` by the operator's name:
///   linear {rows, in, out}; norm {rows, width}; activation, gated_activation, residual_add, dropout,
///   dropout_functional {elements}; attention_flash, attention_scores, attention_softmax, attention_values,
///   attention_dropout, attention_transpose_1 to _3 {batch, heads, kv_heads, sequence, head_dim}; rope {batch, heads,
///   kv_heads, sequence, head_dim}; embedding {rows, width, vocab}; cross_entropy {rows, vocab}; mean {rows}; cast
///   {rows, vocab}; accumulate {elements} (forward only: a gradient added in place).
/// Mist measured both dropouts of a block: dropout (the module) and dropout_functional. Its transposes are 1: Q, K, V
/// to heads first, 2: the keys' last two axes, 3: back to sequence first.
struct OperatorTime {
  std::string op;
  std::string dtype;  ///< "fp16", "bf16", "fp32"
  std::vector<std::int64_t> sizes;
  double forward_s = 0;
  double backward_s = 0;
};
/// Names of the sizes of an operator; empty for an unknown one.
std::vector<std::string_view> operator_size_names(std::string_view op);
std::vector<std::string_view> operator_names();

/// seconds = GB / bandwidth + latency, GB = 2^30 bytes.
struct Link {
  double gb_per_s = 0;
  double latency_s = 0;
  double residual = 0;  ///< mean relative error of the fit; 0 where none was made
  Provenance provenance = Provenance::kFitted;
};

struct CollectiveLink {
  int per_node = 1;  ///< devices of the group on each node
  int nodes = 1;
  Link link;  ///< of an all-gather
};

struct ShapeFactors {
  int per_node = 0;  ///< 0 and 0: any group shape without its own
  int nodes = 0;
  Factors factors;
  double residual = 0;  ///< mean relative error on the measurements it was fitted to; 0 where none was made
};

struct Profile {
  std::string name;
  std::string device;
  std::string source;  ///< who measured it, with what; or the data sheet
  std::uint64_t device_memory_bytes = 0;
  std::map<std::string, double, std::less<>> matrix_flops_per_s;  ///< data-sheet peak by dtype
  double memory_bytes_per_s = 0;                                  ///< of the device's own memory
  std::vector<OperatorTime> operators;
  std::vector<CollectiveLink> collectives;
  Link copy_in;                   ///< host to device
  Link copy_out;                  ///< device to host
  std::optional<Link> p2p_intra;  ///< between devices of one node; missing: the two-device collective link
  std::optional<Link> p2p_inter;
  std::vector<ShapeFactors> interference;  ///< empty: channels that run together share nothing (factors 1)
  double host_update_elements_per_s = 0;   ///< AdamW on the host's processors, a node; 0: unknown

  /// The measured operator of exactly these sizes, or null.
  const OperatorTime* find_operator(std::string_view op, std::string_view dtype,
                                    const std::vector<std::int64_t>& sizes) const;
  /// Those of the group shape, else the shared ones, else the identity (1 everywhere).
  const Factors& factors(int per_node, int nodes) const;
};

/// InputError names the field that is missing, unknown, not positive or absurd.
Profile profile_from_json(const base::Json& json, std::string_view source);
base::OrderedJson profile_to_json(const Profile& profile);
/// A shipped profile by name, "this" (user_profile_path()) or the path of a file. InputError lists the names. Shipped:
///   l4-mist, a100-mist           as Mist published them: what it planned with
///   l4-mist-overlap              the profile of its overlap measurements on one L4 node
///   l4, a100-40g                 the same measurements with interference factors fitted anew, all together
///   l4-datasheet, a10, a100-80g, h100   data sheets; nothing measured on the device
/// The A100 ones have no measured operators: a roofline of the data sheet prices them.
Profile load_profile(std::string_view name_or_path);
/// The profile of this machine, which `gantry profile` writes: gantry/profile.json in $XDG_CACHE_HOME, else ~/.cache.
/// InputError where neither that variable nor HOME is set.
std::filesystem::path user_profile_path();
std::vector<std::string> shipped_profile_names();
/// Hash of the content, 16 hex digits; stands in plans.
std::string profile_hash(const Profile& profile);

}  // namespace gantry::cost
