#pragma once
// What validate() calls the fields of a configuration: the keys of the file that they were read from.
#include <string>
#include <string_view>

#include "gantry/spec/config.h"

namespace gantry::spec::internal {

struct FieldNames {
  std::string vocab_size, hidden_size, num_layers, num_heads, num_kv_heads, head_dim, intermediate_size, max_positions,
      type_vocab_size, norm_eps, rope_theta, rope_factor, dropout, attention_dropout;
};

/// Keys of config.json.
FieldNames hf_names(Family family);

/// spec::validate with other names than those of config.json.
void validate_fields(const ModelConfig& config, std::string_view source, const FieldNames& names);

}  // namespace gantry::spec::internal
