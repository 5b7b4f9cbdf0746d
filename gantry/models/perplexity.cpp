#include "gantry/models/perplexity.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "gantry/base/check.h"
#include "gantry/kernels/cross_entropy/linear_cross_entropy.h"

namespace gantry::models {

PerplexityResult perplexity(LanguageModel& model, std::span<const std::int32_t> ids, const PerplexityOptions& options,
                            const WindowCallback& progress) {
  GANTRY_CHECK(model.config().is_decoder(), "perplexity needs a causal model; {} is an encoder",
               model.config().model_type);
  GANTRY_CHECK(options.window >= 2 && options.batch >= 1, "window {} must be at least 2 and batch {} at least 1",
               options.window, options.batch);
  GANTRY_CHECK(ids.size() >= 2, "the text has {} tokens; perplexity needs at least 2", ids.size());
  const auto total = static_cast<std::int64_t>(ids.size());
  const std::int64_t window = std::min(options.window, total);
  GANTRY_CHECK(window <= model.config().max_positions, "window {} exceeds the model's {} positions", window,
               model.config().max_positions);
  std::int64_t windows = total / window;
  if (options.max_windows > 0) windows = std::min(windows, options.max_windows);
  const at::InferenceMode inference;
  PerplexityResult result;
  for (std::int64_t first = 0; first < windows; first += options.batch) {
    const std::int64_t rows = std::min(options.batch, windows - first);
    at::Tensor input = at::empty({rows, window}, at::kLong);
    std::copy_n(ids.begin() + first * window, rows * window, input.data_ptr<std::int64_t>());
    // The last position predicts nothing; running the model on window - 1 tokens gives the same predictions.
    const at::Tensor hidden = model.hidden({.ids = input.narrow(1, 0, window - 1).contiguous().to(model.device())});
    const at::Tensor labels = input.narrow(1, 1, window - 1).contiguous().to(model.device());
    const at::Tensor losses =
        kernels::linear_cross_entropy_losses(hidden, model.head_weight(), model.head_bias(), labels);
    const at::Tensor sums = losses.to(at::kDouble).view({rows, window - 1}).sum(1).cpu();
    for (std::int64_t r = 0; r < rows; ++r) result.window_nll.push_back(sums[r].item<double>());
    if (progress && !progress(first + rows)) break;
  }
  double nll = 0;
  for (const double value : result.window_nll) nll += value;
  result.tokens = static_cast<std::int64_t>(result.window_nll.size()) * (window - 1);
  result.perplexity = std::exp(nll / static_cast<double>(std::max<std::int64_t>(1, result.tokens)));
  return result;
}

}  // namespace gantry::models
