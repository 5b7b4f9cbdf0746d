#pragma once
// Rotary position embedding: the inverse frequencies of each scaling variant.
#include <cstdint>
#include <vector>

#include "gantry/spec/config.h"

namespace gantry::spec {

struct RopeFrequencies {
  std::vector<float> inverse;     ///< [head_dim / 2]; angle of pair i at position t is t * inverse[i]
  float attention_factor = 1.0f;  ///< multiplies cos and sin (yarn)
};

/// Frequencies for sequences of up to `sequence_length` tokens (only `dynamic` depends on it). Sources: RoPE, Su et al.
/// 2021, section 3.4.2; YaRN, Peng et al. 2023, section 3; Llama 3.1 model card for "llama3".
RopeFrequencies rope_frequencies(const ModelConfig& config, std::int64_t sequence_length);

}  // namespace gantry::spec
