#pragma once
// Perplexity of a causal model on a token stream, in fixed windows.
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "gantry/models/language_model.h"

namespace gantry::models {

struct PerplexityOptions {
  std::int64_t window = 1024;    ///< tokens a window; positions restart in each, tokens 1.. of it are predicted
  std::int64_t max_windows = 0;  ///< 0: all whole windows
  std::int64_t batch = 1;        ///< windows a forward pass
};

struct PerplexityResult {
  double perplexity = 0;           ///< exp of the mean negative log-likelihood
  std::int64_t tokens = 0;         ///< predicted tokens
  std::vector<double> window_nll;  ///< sum of a window's negative log-likelihoods
};

/// Called with the number of windows done; false stops early (the result covers what was done).
using WindowCallback = std::function<bool(std::int64_t)>;

/// InputError when the stream is shorter than one window of 2 tokens. A stream shorter than `window` is one short
/// window.
PerplexityResult perplexity(LanguageModel& model, std::span<const std::int32_t> ids, const PerplexityOptions& options,
                            const WindowCallback& progress = {});

}  // namespace gantry::models
