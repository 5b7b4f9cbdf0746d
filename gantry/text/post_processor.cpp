// Special tokens around a text.
#include "gantry/text/tokenizer_parts.h"

namespace gantry::text {
namespace {

using base::Json;
using base::json_get;

constexpr std::size_t kMaxFrameTokens = 1024;

std::int32_t pair_id(const Json& config, const char* key, std::string_view source) {
  const auto pair = json_get<Json>(config, key, source);
  GANTRY_CHECK(pair.is_array() && pair.size() == 2 && pair[0].is_string() && pair[1].is_number_unsigned(),
               "{}: '{}' of the post-processor must be [token, id]", source, key);
  GANTRY_CHECK(pair[1].get<std::uint64_t>() <= 0x7fffffffu, "{}: the id of '{}' is out of range", source, key);
  return pair[1].get<std::int32_t>();
}

void add_template(const Json& config, std::string_view source, SpecialFrame& frame) {
  const auto pieces = json_get<Json>(config, "single", source);
  const auto specials = json_get<Json>(config, "special_tokens", source);
  GANTRY_CHECK(pieces.is_array() && specials.is_object(),
               "{}: TemplateProcessing needs a list 'single' and an object "
               "'special_tokens'",
               source);
  bool before = true;
  std::vector<std::int32_t> prefix;
  for (const Json& piece : pieces) {
    GANTRY_CHECK(piece.is_object(), "{}: 'single' must hold objects, found {}", source, piece.type_name());
    if (piece.contains("Sequence")) {
      GANTRY_CHECK(before, "{}: 'single' holds the text twice, which is not supported", source);
      before = false;
      continue;
    }
    const auto name = json_get<std::string>(json_get<Json>(piece, "SpecialToken", source), "id", source);
    const auto ids = json_get<std::vector<std::int32_t>>(json_get<Json>(specials, name, source), "ids", source);
    auto& target = before ? prefix : frame.suffix;
    target.insert(target.end(), ids.begin(), ids.end());
  }
  frame.prefix.insert(frame.prefix.begin(), prefix.begin(), prefix.end());
}

void add_processor(const Json& config, std::string_view source, SpecialFrame& frame) {
  const auto type = json_get<std::string>(config, "type", source);
  if (type == "Sequence") {
    const auto list = json_get<Json>(config, "processors", source);
    GANTRY_CHECK(list.is_array(), "{}: 'processors' must be a list, found {}", source, list.type_name());
    for (const Json& item : list) add_processor(item, source, frame);
  } else if (type == "TemplateProcessing") {
    add_template(config, source, frame);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    frame.prefix.insert(frame.prefix.begin(), pair_id(config, "cls", source));
    frame.suffix.push_back(pair_id(config, "sep", source));
  } else {
    GANTRY_CHECK(type == "ByteLevel", "{}: post-processor '{}' is not supported", source, type);
  }
}

}  // namespace

SpecialFrame special_frame(const Json& post_processor, std::string_view source) {
  SpecialFrame frame;
  if (!post_processor.is_null()) add_processor(post_processor, source, frame);
  GANTRY_CHECK(frame.prefix.size() + frame.suffix.size() <= kMaxFrameTokens,
               "{}: the post-processor adds {} tokens, the limit is {}", source,
               frame.prefix.size() + frame.suffix.size(), kMaxFrameTokens);
  return frame;
}

Json template_processing(const std::vector<std::pair<std::string, std::int32_t>>& prefix,
                         const std::vector<std::pair<std::string, std::int32_t>>& suffix) {
  if (prefix.empty() && suffix.empty()) return nullptr;
  Json single = Json::array();
  Json pair = Json::array();
  Json specials = Json::object();
  const auto add_specials = [&](const std::vector<std::pair<std::string, std::int32_t>>& tokens, Json& list, int type) {
    for (const auto& [token, id] : tokens) {
      list.push_back({{"SpecialToken", {{"id", token}, {"type_id", type}}}});
      specials[token] = {{"id", token}, {"ids", {id}}, {"tokens", {token}}};
    }
  };
  const auto add_sequence = [](Json& list, const char* name, int type) {
    list.push_back({{"Sequence", {{"id", name}, {"type_id", type}}}});
  };
  for (Json* list : {&single, &pair}) {
    add_specials(prefix, *list, 0);
    add_sequence(*list, "A", 0);
    add_specials(suffix, *list, 0);
  }
  add_sequence(pair, "B", 1);
  add_specials(suffix, pair, 1);
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", specials}};
}

}  // namespace gantry::text
