#include "gantry/models/generate.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "gantry/base/check.h"
#include "gantry/base/interrupt.h"
#include "gantry/base/timer.h"
#include "gantry/models/stop_text.h"
#include "gantry/text/detokenizer.h"

namespace gantry::models {
namespace {

at::Tensor to_ids(std::span<const std::int32_t> ids) {
  at::Tensor tensor = at::empty({1, static_cast<std::int64_t>(ids.size())}, at::kLong);
  std::copy(ids.begin(), ids.end(), tensor.data_ptr<std::int64_t>());
  return tensor;
}

bool contains(const std::vector<std::int64_t>& ids, std::int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// The token loop: prefill, choose, show, decode. `accept` hears every token and returns a finish reason or "".
class Decoder {
 public:
  // `known`: ids from here on are never chosen; a vocabulary padded to a round size has rows that no token belongs to.
  Decoder(LanguageModel& model, const std::vector<std::int32_t>& prompt, const GenerateOptions& options,
          std::int64_t known)
      : model_(model), options_(options), sampler_(options.sampling), seen_(prompt), known_(known) {
    GANTRY_CHECK(model.config().is_decoder(), "{} is an encoder and can't generate text", model.config().model_type);
    GANTRY_CHECK(!prompt.empty(), "the prompt is empty; give at least one token");
    GANTRY_CHECK(options.max_tokens > 0, "max_tokens {} must be positive", options.max_tokens);
    const auto length = static_cast<std::int64_t>(prompt.size());
    GANTRY_CHECK(length < model.config().max_positions,
                 "the prompt has {} tokens; the model handles {} positions in all", length,
                 model.config().max_positions);
    limit_ = std::min(options.max_tokens, model.config().max_positions - length);
    cache_ = model.make_cache(1, length + limit_);
  }

  template <class Accept>
  Generation run(const Accept& accept) {
    const at::InferenceMode inference;
    Generation result;
    base::Timer timer;
    std::int32_t token = next(to_ids(seen_));
    result.prefill_s = timer.seconds();
    timer.reset();
    for (;;) {
      result.ids.push_back(token);
      seen_.push_back(token);
      result.finish_reason = accept(token);
      if (!result.finish_reason.empty()) break;
      if (static_cast<std::int64_t>(result.ids.size()) >= limit_) {
        result.finish_reason = "length";
      } else if (base::interrupted()) {
        result.finish_reason = "interrupted";
      }
      if (!result.finish_reason.empty()) break;
      token = next(to_ids({&token, 1}));
    }
    result.decode_s = timer.seconds();
    return result;
  }

 private:
  std::int32_t next(const at::Tensor& ids) {
    const at::Tensor hidden = model_.hidden({.ids = ids.to(model_.device()), .cache = cache_.get()});
    const at::Tensor last = hidden.narrow(1, hidden.size(1) - 1, 1);
    const at::Tensor logits = model_.logits(last).to(at::kFloat).to(at::kCPU).contiguous();
    return sampler_.sample({logits.const_data_ptr<float>(), static_cast<std::size_t>(std::min(known_, logits.numel()))},
                           seen_);
  }

  LanguageModel& model_;
  const GenerateOptions& options_;
  Sampler sampler_;
  std::vector<std::int32_t> seen_;
  std::int64_t known_;
  std::int64_t limit_;
  std::unique_ptr<layers::KvCache> cache_;
};

}  // namespace

Generation generate(LanguageModel& model, const text::Tokenizer& tokenizer, const std::vector<std::int32_t>& prompt,
                    const GenerateOptions& options, const TextCallback& on_text) {
  std::vector<std::int64_t> ends = model.config().eos_token_ids;
  for (const std::int32_t id : tokenizer.stop_ids()) ends.push_back(id);
  text::StreamingDetokenizer detokenizer(tokenizer);
  StopTextFilter filter(options.stop);
  std::string text;
  const auto show = [&](const std::string& piece) {
    text += piece;
    return piece.empty() || !on_text || on_text(piece);
  };
  Generation result =
      Decoder(model, prompt, options, tokenizer.vocab_size()).run([&](std::int32_t token) -> std::string {
        const bool end = contains(ends, token) && !options.ignore_eos;
        const bool go_on = show(filter.push(detokenizer.push(token)));
        if (end || filter.stopped()) return "stop";
        return go_on ? "" : "interrupted";
      });
  if (!filter.stopped()) {
    show(filter.push(detokenizer.flush()));
    if (!filter.stopped()) show(filter.flush());
  }
  result.text = std::move(text);
  return result;
}

Generation generate_ids(LanguageModel& model, const std::vector<std::int32_t>& prompt, const GenerateOptions& options) {
  const auto& ends = model.config().eos_token_ids;
  return Decoder(model, prompt, options, model.config().vocab_size).run([&](std::int32_t token) -> std::string {
    return contains(ends, token) && !options.ignore_eos ? "stop" : "";
  });
}

}  // namespace gantry::models
