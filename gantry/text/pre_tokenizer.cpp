#include "gantry/text/pre_tokenizer.h"

#include "gantry/text/byte_map.h"
#include "gantry/text/pipeline_constants.h"
#include "gantry/text/split.h"
#include "gantry/text/utf8.h"

namespace gantry::text {

const char* const kGpt2Pattern = R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

using base::Json;
using base::json_get;
using base::json_get_or;

constexpr std::size_t kMetaspaceBytes = 64;
// ASCII punctuation counts even where Unicode calls it a symbol.
constexpr const char* kPunctuationPattern = R"([\p{P}!-/:-@\[-`{-~])";

std::function<void(Pieces&)> split_step(const std::string& pattern, SplitBehavior behavior, bool invert,
                                        std::string_view source) {
  return [regex = Regex(pattern, source), behavior, invert](Pieces& pieces) {
    split_pieces(pieces, regex, behavior, invert);
  };
}

std::string replace_spaces(std::string_view piece, std::string_view replacement) {
  std::string out;
  out.reserve(piece.size() + piece.size() / 2);
  for (const char c : piece) {
    if (c == ' ')
      out += replacement;
    else
      out.push_back(c);
  }
  return out;
}

}  // namespace

std::string pattern_of(const Json& config, std::string_view source) {
  GANTRY_CHECK(config.is_object() && config.size() == 1 && (config.contains("String") || config.contains("Regex")) &&
                   config.begin()->is_string(),
               "{}: a pattern must be {{\"String\": ...}} or {{\"Regex\": ...}}, found {}", source,
               config.dump(-1, ' ', false, Json::error_handler_t::replace));
  const auto& text = config.begin()->get_ref<const std::string&>();
  return config.contains("Regex") ? text : escape_pattern(text);
}

void rewrite_pieces(Pieces& pieces, const std::function<std::string(std::string_view, bool)>& edit) {
  std::string text;
  text.reserve(pieces.text.size() + pieces.text.size() / 4);
  std::vector<Pieces::Range> ranges;
  ranges.reserve(pieces.ranges.size());
  for (const Pieces::Range& range : pieces.ranges) {
    const std::size_t begin = text.size();
    text += edit(pieces.view(range), pieces.at_text_start && range.begin == 0);
    if (text.size() > begin) ranges.push_back({begin, text.size()});
  }
  pieces.text = std::move(text);
  pieces.ranges = std::move(ranges);
}

void split_before_metaspace(Pieces& pieces) {
  std::vector<Pieces::Range> out;
  out.reserve(pieces.ranges.size() + pieces.text.size() / 4);
  for (const Pieces::Range& range : pieces.ranges) {
    const std::string_view piece = pieces.view(range);
    std::size_t begin = 0;
    for (std::size_t at = piece.find(kMetaspace); at != std::string_view::npos; at = piece.find(kMetaspace, at)) {
      if (at > begin) {
        out.push_back({range.begin + begin, range.begin + at});
        begin = at;
      }
      while (piece.substr(at, kMetaspace.size()) == kMetaspace) at += kMetaspace.size();
    }
    if (begin < piece.size()) out.push_back({range.begin + begin, range.end});
  }
  pieces.ranges = std::move(out);
}

PreTokenizer::PreTokenizer(const Json& config, std::string_view source, bool defer_spelling)
    : defer_spelling_(defer_spelling) {
  if (!config.is_null()) add(config, source, true);
}

void PreTokenizer::apply(Pieces& pieces) const {
  const std::size_t limit = pieces.text.size() * kMaxGrowth + (std::size_t{1} << 20);
  for (const Step& step : steps_) {
    step(pieces);
    GANTRY_CHECK(pieces.text.size() <= limit,
                 "the pre-tokeniser made {} bytes of a text where {} is the limit; its steps are damaged",
                 pieces.text.size(), limit);
  }
}

void PreTokenizer::add(const Json& config, std::string_view source, bool last) {
  const auto type = json_get<std::string>(config, "type", source);
  if (type == "Sequence") {
    const auto& list = json_get<Json>(config, "pretokenizers", source);
    GANTRY_CHECK(list.is_array(), "{}: 'pretokenizers' must be a list, found {}", source, list.type_name());
    for (std::size_t i = 0; i < list.size(); ++i) add(list[i], source, last && i + 1 == list.size());
  } else if (type == "ByteLevel") {
    add_byte_level(config, source, last);
  } else if (type == "Split") {
    add_split(config, source);
  } else if (type == "Metaspace") {
    add_metaspace(config, source);
  } else if (type == "Digits") {
    const bool individual = json_get_or<bool>(config, "individual_digits", false, source);
    steps_.push_back(
        split_step("\\p{N}", individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous, false, source));
  } else if (type == "Punctuation") {
    const auto behavior = json_get_or<std::string>(config, "behavior", "Isolated", source);
    steps_.push_back(split_step(kPunctuationPattern, parse_split_behavior(behavior, source), false, source));
  } else if (type == "Whitespace") {
    steps_.push_back(
        split_step(fmt::format("[{0}]+|[^{0}\\s]+", kUnicodeWordSet), SplitBehavior::kRemoved, true, source));
  } else if (type == "WhitespaceSplit") {
    steps_.push_back(split_step("\\s", SplitBehavior::kRemoved, false, source));
  } else if (type == "BertPreTokenizer") {
    steps_.push_back(split_step("\\s", SplitBehavior::kRemoved, false, source));
    steps_.push_back(split_step(kPunctuationPattern, SplitBehavior::kIsolated, false, source));
  } else if (type == "CharDelimiterSplit") {
    const auto delimiter = json_get<std::string>(config, "delimiter", source);
    steps_.push_back(split_step(escape_pattern(delimiter), SplitBehavior::kRemoved, false, source));
  } else {
    base::fail_input("{}: pre-tokeniser '{}' is not supported", source, type);
  }
}

void PreTokenizer::add_byte_level(const Json& config, std::string_view source, bool last) {
  if (json_get_or<bool>(config, "add_prefix_space", true, source)) {
    steps_.push_back([](Pieces& pieces) {
      rewrite_pieces(pieces, [](std::string_view piece, bool) {
        return piece.starts_with(' ') ? std::string(piece) : std::string(" ").append(piece);
      });
    });
  }
  if (json_get_or<bool>(config, "use_regex", true, source)) {
    steps_.push_back(split_step(kGpt2Pattern, SplitBehavior::kIsolated, false, source));
  }
  if (last && defer_spelling_) {
    spells_bytes_ = true;
  } else {
    steps_.push_back([](Pieces& pieces) {
      rewrite_pieces(pieces, [](std::string_view piece, bool) { return spell_bytes(unescape_bytes(piece)); });
    });
  }
}

void PreTokenizer::add_split(const Json& config, std::string_view source) {
  const std::string pattern = pattern_of(json_get<Json>(config, "pattern", source), source);
  const auto behavior = parse_split_behavior(json_get<std::string>(config, "behavior", source), source);
  steps_.push_back(split_step(pattern, behavior, json_get_or<bool>(config, "invert", false, source), source));
}

void PreTokenizer::add_metaspace(const Json& config, std::string_view source) {
  const auto replacement = json_get_or<std::string>(config, "replacement", std::string(kMetaspace), source);
  GANTRY_CHECK(!replacement.empty() && replacement.size() <= kMetaspaceBytes,
               "{}: the 'replacement' of Metaspace has {} bytes, expected 1 to {}", source, replacement.size(),
               kMetaspaceBytes);
  const bool legacy_prefix = json_get_or<bool>(config, "add_prefix_space", true, source);
  const auto scheme = json_get_or<std::string>(config, "prepend_scheme", legacy_prefix ? "always" : "never", source);
  GANTRY_CHECK(scheme == "always" || scheme == "first" || scheme == "never",
               "{}: 'prepend_scheme' is '{}', expected always, first or never", source, scheme);
  steps_.push_back([replacement, scheme](Pieces& pieces) {
    rewrite_pieces(pieces, [&](std::string_view piece, bool begins_text) {
      std::string out = replace_spaces(piece, replacement);
      const bool prepend = scheme == "always" || (scheme == "first" && begins_text);
      if (prepend && !out.starts_with(replacement)) out.insert(0, replacement);
      return out;
    });
  });
  if (json_get_or<bool>(config, "split", true, source)) {
    steps_.push_back(split_step(escape_pattern(replacement), SplitBehavior::kMergedWithNext, false, source));
  }
}

}  // namespace gantry::text
