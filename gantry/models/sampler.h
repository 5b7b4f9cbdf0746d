#pragma once
// Choosing the next token from logits. Torch-free: logits are a span of fp32.
#include <cstdint>
#include <span>
#include <vector>

#include "gantry/base/random.h"

namespace gantry::models {

struct SamplingOptions {
  double temperature = 0.0;
  std::int64_t top_k = 0;
  double top_p = 1.0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  std::uint64_t seed = 0;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit.group("Sampling");
    visit("temperature", temperature, "0 takes the likeliest token; above, logits are divided by it");
    visit("top_k", top_k, "keep the K likeliest tokens; 0: all");
    visit("top_p", top_p, "keep the fewest tokens whose probabilities sum to P; 1: all");
    visit("min_p", min_p, "drop tokens less likely than P times the likeliest; 0: none");
    visit("repetition_penalty", repetition_penalty, "divide the logits of tokens seen before (1: off)");
    visit("seed", seed, "seed of the random draws; the same seed gives the same text");
  }
};

/// InputError naming the option that is out of range.
void validate(const SamplingOptions& options);

class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);

  /// The next token id. `seen` are the ids that the repetition penalty covers. Order of filters: penalty, temperature,
  /// top-k, top-p, min-p. Ties go to the lower id. InputError when a logit is NaN.
  std::int32_t sample(std::span<const float> logits, std::span<const std::int32_t> seen);

 private:
  SamplingOptions options_;
  base::CounterRandom random_;
};

}  // namespace gantry::models
