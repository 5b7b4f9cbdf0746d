#include "gantry/text/decoder.h"

#include "gantry/text/byte_map.h"
#include "gantry/text/normalizer.h"
#include "gantry/text/pipeline_constants.h"
#include "gantry/text/pre_tokenizer.h"

namespace gantry::text {
namespace {

using base::Json;
using base::json_get;
using base::json_get_or;

void replace_literal(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

// Undoes the spaces that splitting off punctuation and contractions left.
void clean_up(std::string& text) {
  static constexpr std::pair<const char*, const char*> kRules[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) replace_literal(text, from, to);
}

void strip_repeats(std::string& text, std::string_view content, std::size_t start, std::size_t stop) {
  for (std::size_t i = 0; i < start && text.starts_with(content); ++i) text.erase(0, content.size());
  for (std::size_t i = 0; i < stop && text.ends_with(content); ++i) text.erase(text.size() - content.size());
}

}  // namespace

Decoder::Decoder(const Json& config, std::string_view source) {
  joins_with_space_ = config.is_null();
  if (joins_with_space_)
    token_steps_.push_back({Kind::kJoinWithSpace, " "});
  else
    add(config, source);
}

void Decoder::add(const Json& config, std::string_view source) {
  const auto type = json_get<std::string>(config, "type", source);
  if (type == "Sequence") {
    const auto list = json_get<Json>(config, "decoders", source);
    GANTRY_CHECK(list.is_array(), "{}: 'decoders' must be a list, found {}", source, list.type_name());
    for (const Json& item : list) add(item, source);
  } else if (type == "Fuse") {
    fused_ = true;
  } else {
    add_step(type, config, source);
  }
}

void Decoder::add_step(const std::string& type, const Json& config, std::string_view source) {
  Step step{Kind::kByteLevel, ""};
  if (type == "ByteLevel") {
    step.kind = Kind::kByteLevel;
  } else if (type == "ByteFallback") {
    step.kind = Kind::kByteFallback;
  } else if (type == "Replace") {
    step.kind = Kind::kReplace;
    step.text = json_get<std::string>(config, "content", source);
    step.regex = Regex(pattern_of(json_get<Json>(config, "pattern", source), source), source);
  } else if (type == "Strip") {
    step.kind = Kind::kStrip;
    step.text = json_get<std::string>(config, "content", source);
    step.start = json_get_or<std::uint32_t>(config, "start", 0, source);
    step.stop = json_get_or<std::uint32_t>(config, "stop", 0, source);
    GANTRY_CHECK(!step.text.empty(), "{}: a Strip decoder needs a 'content'", source);
  } else if (type == "Metaspace") {
    step.kind = Kind::kMetaspace;
    step.text = json_get_or<std::string>(config, "replacement", std::string(kMetaspace), source);
    const bool legacy = json_get_or<bool>(config, "add_prefix_space", true, source);
    step.flag = json_get_or<std::string>(config, "prepend_scheme", legacy ? "always" : "never", source) != "never";
    GANTRY_CHECK(!step.text.empty(), "{}: a Metaspace decoder needs a 'replacement'", source);
  } else if (type == "WordPiece") {
    step.kind = Kind::kWordPiece;
    step.text = json_get_or<std::string>(config, "prefix", "##", source);
    step.flag = json_get_or<bool>(config, "cleanup", true, source);
  } else if (type == "BPEDecoder") {
    step.kind = Kind::kSuffix;
    step.text = json_get_or<std::string>(config, "suffix", "</w>", source);
  } else {
    base::fail_input("{}: decoder '{}' is not supported", source, type);
  }
  GANTRY_CHECK(step.text.size() <= kMaxInsertedBytes, "{}: a string of {} bytes in decoder '{}'; the limit is {}",
               source, step.text.size(), type, kMaxInsertedBytes);
  // Behind Fuse only a strip of the start can be done without seeing the rest.
  if (fused_ && (step.kind != Kind::kStrip || step.stop > 0 || !text_steps_.empty())) holds_back_ = true;
  (fused_ ? text_steps_ : token_steps_).push_back(std::move(step));
}

void Decoder::append(std::string_view token, bool verbatim, State& state, std::string& out) const {
  std::string bytes(token);
  const std::size_t limit = token.size() * kMaxGrowth + kMaxInsertedBytes;
  for (const Step& step : token_steps_) {
    run(step, verbatim, state, bytes);
    GANTRY_CHECK(bytes.size() <= limit, "the decoder made {} bytes of a token of {}; its steps are damaged",
                 bytes.size(), token.size());
  }
  state.first = false;
  if (holds_back_) {
    state.waiting += bytes;
    return;
  }
  if (!text_steps_.empty()) strip_start(state, bytes);
  out += bytes;
}

void Decoder::strip_start(State& state, std::string& text) const {
  const Step& step = text_steps_.front();
  while (state.stripping && !text.empty()) {
    state.stripping = state.stripped < step.start && text.starts_with(step.text);
    if (!state.stripping) return;
    text.erase(0, step.text.size());
    ++state.stripped;
  }
}

void Decoder::finish(State& state, std::string& out) const {
  if (holds_back_) {
    State fresh;
    const std::size_t limit = (state.waiting.size() + kMaxInsertedBytes) * kMaxGrowth;
    for (const Step& step : text_steps_) {
      run(step, false, fresh, state.waiting);
      GANTRY_CHECK(state.waiting.size() <= limit,
                   "the decoder made {} bytes where {} is the limit; its steps are damaged", state.waiting.size(),
                   limit);
    }
    out += state.waiting;
  }
  state = State{};
}

std::string Decoder::token_bytes(std::string_view token, bool verbatim) const {
  State middle;
  middle.first = false;
  middle.stripping = false;
  if (joins_with_space_) return std::string(token);
  std::string bytes;
  append(token, verbatim, middle, bytes);
  return bytes + middle.waiting;
}

void Decoder::run(const Step& step, bool verbatim, State& state, std::string& token) const {
  switch (step.kind) {
    case Kind::kByteLevel: {
      std::string bytes;
      if (!verbatim && unspell_bytes(token, bytes)) token = std::move(bytes);
      return;
    }
    case Kind::kByteFallback: {
      const int value = byte_token_value(token);
      if (value >= 0) token.assign(1, static_cast<char>(value));
      return;
    }
    case Kind::kReplace: token = replace_all(token, *step.regex, step.text); return;
    case Kind::kStrip: strip_repeats(token, step.text, step.start, step.stop); return;
    case Kind::kMetaspace: replace_literal(token, step.text, step.flag && state.first ? "" : " "); return;
    case Kind::kWordPiece:
      if (!state.first) {
        if (token.starts_with(step.text))
          token.erase(0, step.text.size());
        else
          token.insert(0, " ");
      }
      if (step.flag) clean_up(token);
      return;
    case Kind::kSuffix: {
      const bool ends_word = !step.text.empty() && token.ends_with(step.text);
      if (ends_word) token.erase(token.size() - step.text.size());
      if (!state.waiting.empty()) token.insert(0, " ");
      state.waiting = ends_word ? " " : "";  // the last word gets no space
      return;
    }
    case Kind::kJoinWithSpace:
      if (!state.first) token.insert(0, step.text);
      return;
  }
}

}  // namespace gantry::text
