#pragma once
// Text generation for one sequence: prefill, then a token at a time with a KV cache.
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/models/language_model.h"
#include "gantry/models/sampler.h"
#include "gantry/text/tokenizer.h"

namespace gantry::models {

struct GenerateOptions {
  std::int64_t max_tokens = 128;
  bool ignore_eos = false;
  std::vector<std::string> stop = {};
  SamplingOptions sampling = {};

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit.group("Length");
    visit("max_tokens", max_tokens, "most tokens to generate");
    visit("ignore_eos", ignore_eos, "go on after an end-of-text token");
    visit("stop", stop, "stop before this text appears (may be given several times)");
    sampling.visit_fields(visit);
  }
};

struct Generation {
  std::vector<std::int32_t> ids;  ///< generated ids, the end token included
  std::string text;               ///< without special tokens and without the stop text
  std::string finish_reason;      ///< "stop" (end token or stop text), "length", "interrupted"
  double prefill_s = 0;           ///< until the first token was chosen
  double decode_s = 0;            ///< for the tokens after the first
};

/// Receives text as it becomes final (whole characters, never part of a stop text). False stops the generation.
using TextCallback = std::function<bool(std::string_view)>;

/// Generates from `prompt` (ids, at least one). Stops at an end token (unless ignored), a stop text, max_tokens, the
/// model's position limit or base::interrupted(). InputError when the prompt alone exceeds the model's positions.
Generation generate(LanguageModel& model, const text::Tokenizer& tokenizer, const std::vector<std::int32_t>& prompt,
                    const GenerateOptions& options, const TextCallback& on_text = {});

/// The same on bare ids, for models without a tokeniser: no text and no stop texts.
Generation generate_ids(LanguageModel& model, const std::vector<std::int32_t>& prompt, const GenerateOptions& options);

}  // namespace gantry::models
