#include "gantry/text/normalizer.h"

#include <memory>

#include "gantry/text/byte_map.h"
#include "gantry/text/charsmap.h"
#include "gantry/text/pipeline_constants.h"
#include "gantry/text/pre_tokenizer.h"
#include "gantry/text/regex.h"
#include "gantry/text/unicode.h"
#include "gantry/text/utf8.h"

namespace gantry::text {
namespace {

using base::Json;
using base::json_get;
using base::json_get_or;

// A string that a step inserts.
std::string inserted_text(const Json& config, std::string_view key, std::string_view source) {
  auto text = json_get<std::string>(config, key, source);
  GANTRY_CHECK(text.size() <= kMaxInsertedBytes, "{}: '{}' has {} bytes, the limit is {}", source, key, text.size(),
               kMaxInsertedBytes);
  return text;
}

// Copies `text` character by character through `edit(out, code)`.
template <class Edit>
std::string map_chars(std::string_view text, Edit edit) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t position = 0; position < text.size();) {
    const DecodedChar c = decode_utf8(text, position);
    edit(out, c.code);
    position += c.length;
  }
  return out;
}

template <class Drop>
std::string drop_chars(std::string_view text, Drop drop) {
  return map_chars(text, [&](std::string& out, char32_t code) {
    if (!drop(code)) append_utf8(out, code);
  });
}

std::string strip(std::string_view text, bool left, bool right) {
  std::size_t begin = 0;
  while (left && begin < text.size()) {
    const DecodedChar c = decode_utf8(text, begin);
    if (!is_white_space(c.code)) break;
    begin += c.length;
  }
  std::size_t end = begin;
  for (std::size_t position = begin; position < text.size();) {
    const DecodedChar c = decode_utf8(text, position);
    position += c.length;
    if (!right || !is_white_space(c.code)) end = position;
  }
  return std::string(text.substr(begin, end - begin));
}

// SentencePiece's "nmt" rules: control characters go, odd spaces become spaces.
void nmt_char(std::string& out, char32_t code) {
  const auto in = [code](char32_t low, char32_t high) { return code >= low && code <= high; };
  if (in(0x1, 0x8) || code == 0xb || in(0xe, 0x1f) || code == 0x7f || code == 0x8f || code == 0x9f) return;
  const bool space = code == 0x9 || code == 0xa || code == 0xc || code == 0xd || code == 0x1680 || in(0x200b, 0x200f) ||
                     code == 0x2028 || code == 0x2029 || code == 0x2581 || code == 0xfeff || code == 0xfffd;
  append_utf8(out, space ? U' ' : code);
}

void bert_clean_char(std::string& out, char32_t code) {
  const bool plain_space = code == '\t' || code == '\n' || code == '\r';
  if (!plain_space && (code == 0 || code == 0xfffd || is_control_or_format(code))) return;
  append_utf8(out, plain_space || is_white_space(code) ? U' ' : code);
}

void bert_cjk_char(std::string& out, char32_t code) {
  const bool apart = is_cjk_ideograph(code);
  if (apart) out.push_back(' ');
  append_utf8(out, code);
  if (apart) out.push_back(' ');
}

}  // namespace

std::string replace_all(std::string_view text, const Regex& pattern, std::string_view content) {
  std::string out;
  std::size_t done = 0;
  std::size_t from = 0;
  while (from <= text.size()) {
    const auto match = pattern.find(text, from);
    if (!match) break;
    out.append(text.substr(done, match->begin - done));
    out.append(content);
    done = from = match->end;
    if (match->begin == match->end) from += from < text.size() ? decode_utf8(text, from).length : 1;
  }
  out.append(text.substr(done));
  return out;
}

Normalizer::Normalizer(const Json& config, std::string_view source) {
  if (!config.is_null()) add(config, source);
}

std::string Normalizer::apply(std::string text) const {
  const std::size_t limit = text.size() * kMaxGrowth + (std::size_t{1} << 20);
  for (const Step& step : steps_) {
    text = step(std::move(text));
    GANTRY_CHECK(text.size() <= limit,
                 "the tokeniser's normaliser made {} bytes of a text where {} is the limit; its steps are damaged",
                 text.size(), limit);
  }
  return text;
}

void Normalizer::add(const Json& config, std::string_view source) {
  const auto type = json_get<std::string>(config, "type", source);
  const auto form = [this](NormalForm which) {
    steps_.push_back([which](std::string text) { return to_normal_form(text, which); });
  };
  if (type == "Sequence") {
    const auto list = json_get<Json>(config, "normalizers", source);
    GANTRY_CHECK(list.is_array(), "{}: 'normalizers' must be a list, found {}", source, list.type_name());
    for (const Json& item : list) add(item, source);
  } else if (type == "NFC") {
    form(NormalForm::kNfc);
  } else if (type == "NFD") {
    form(NormalForm::kNfd);
  } else if (type == "NFKC") {
    form(NormalForm::kNfkc);
  } else if (type == "NFKD") {
    form(NormalForm::kNfkd);
  } else if (type == "Lowercase") {
    steps_.push_back([](std::string text) { return to_lower(text); });
  } else if (type == "StripAccents") {
    steps_.push_back([](std::string text) { return drop_chars(text, is_mark); });
  } else if (type == "Strip") {
    const bool left = json_get_or<bool>(config, "strip_left", true, source);
    const bool right = json_get_or<bool>(config, "strip_right", true, source);
    steps_.push_back([left, right](std::string text) { return strip(text, left, right); });
  } else if (type == "Prepend") {
    const auto prefix = inserted_text(config, "prepend", source);
    steps_.push_back([prefix](std::string text) { return text.empty() ? text : prefix + text; });
  } else if (type == "Replace") {
    const Regex pattern(pattern_of(json_get<Json>(config, "pattern", source), source), source);
    const auto content = inserted_text(config, "content", source);
    steps_.push_back([pattern, content](std::string text) { return replace_all(text, pattern, content); });
  } else if (type == "Nmt") {
    steps_.push_back([](std::string text) { return map_chars(text, nmt_char); });
  } else if (type == "ByteLevel") {
    steps_.push_back([](std::string text) { return spell_bytes(unescape_bytes(text)); });
  } else if (type == "Precompiled") {
    const auto encoded = json_get_or<std::string>(config, "precompiled_charsmap", "", source);
    if (encoded.empty()) return;
    auto map = std::make_shared<const Charsmap>(decode_base64(encoded, source), source);
    steps_.push_back([map](std::string text) { return map->apply(text); });
  } else if (type == "BertNormalizer") {
    add_bert(config, source);
  } else {
    base::fail_input("{}: normaliser '{}' is not supported", source, type);
  }
}

void Normalizer::add_bert(const Json& config, std::string_view source) {
  const bool lowercase = json_get_or<bool>(config, "lowercase", true, source);
  if (json_get_or<bool>(config, "clean_text", true, source)) {
    steps_.push_back([](std::string text) { return map_chars(text, bert_clean_char); });
  }
  if (json_get_or<bool>(config, "handle_chinese_chars", true, source)) {
    steps_.push_back([](std::string text) { return map_chars(text, bert_cjk_char); });
  }
  if (json_get_or<bool>(config, "strip_accents", lowercase, source)) {
    steps_.push_back(
        [](std::string text) { return drop_chars(to_normal_form(text, NormalForm::kNfd), is_nonspacing_mark); });
  }
  if (lowercase) {
    steps_.push_back([](std::string text) { return to_lower(text); });
  }
}

}  // namespace gantry::text
