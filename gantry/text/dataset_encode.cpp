#include <algorithm>

#include "gantry/text/chat_template.h"
#include "gantry/text/dataset_build.h"
#include "gantry/text/tokenizer.h"

namespace gantry::text {
namespace {

std::string special_text(const Tokenizer& tokenizer, std::optional<std::int32_t> id) {
  return id ? std::string(tokenizer.token_text(*id)) : std::string();
}

bool inside(const std::vector<std::pair<std::size_t, std::size_t>>& ranges, std::size_t at) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const auto& range) { return at >= range.first && at < range.second; });
}

/// Marks the tokens that begin inside the assistant's ranges, by adding up the bytes of the tokens. False where these
/// do not spell the text, because a normaliser changed it.
bool mask_by_bytes(const TrainingChat& chat, const Tokenizer& tokenizer, EncodedPiece& piece) {
  std::string_view rest = chat.text;
  piece.trained.clear();
  for (std::size_t i = 0; i < piece.tokens.size(); ++i) {
    std::string bytes = tokenizer.token_bytes(piece.tokens[i]);
    // SentencePiece puts a blank before the first word.
    if (i == 0 && bytes.starts_with(" ") && !rest.starts_with(" ")) bytes.erase(0, 1);
    if (!rest.starts_with(bytes)) return false;
    piece.trained.push_back(inside(chat.assistant, chat.text.size() - rest.size()));
    rest.remove_prefix(bytes.size());
  }
  return rest.empty();
}

/// Tokenises the assistant's ranges and what lies between them one by one.
void encode_by_parts(const TrainingChat& chat, const Tokenizer& tokenizer, EncodedPiece& piece) {
  piece = {};
  const auto add = [&](std::size_t begin, std::size_t end, bool trained) {
    const auto ids = tokenizer.encode(std::string_view(chat.text).substr(begin, end - begin));
    piece.tokens.insert(piece.tokens.end(), ids.begin(), ids.end());
    piece.trained.insert(piece.trained.end(), ids.size(), trained);
  };
  std::size_t at = 0;
  for (const auto& [begin, end] : chat.assistant) {
    if (begin > at) add(at, begin, false);
    add(begin, end, true);
    at = end;
  }
  if (at < chat.text.size()) add(at, chat.text.size(), false);
}

EncodedPiece encode_chat(const DocumentPiece& piece, const Tokenizer& tokenizer, const ChatTemplate* chat,
                         const DatasetOptions& options) {
  GANTRY_CHECK(chat != nullptr, "{}: a conversation, but the model has no chat template; use lines with '{}'",
               piece.place, options.text_field);
  ChatContext context;
  context.bos_token = special_text(tokenizer, tokenizer.bos_id());
  context.eos_token = special_text(tokenizer, tokenizer.eos_id());
  for (const auto& [key, value] : piece.messages.items()) {
    if (key == "tools") context.tools = value;
    if (key == "documents") context.documents = value;
  }
  EncodedPiece encoded;
  try {
    if (!options.assistant_only) {
      encoded.tokens = tokenizer.encode(chat->render(piece.messages["messages"], false, context));
      return encoded;
    }
    const TrainingChat rendered = chat->render_for_training(piece.messages["messages"], context);
    encoded.tokens = tokenizer.encode(rendered.text);
    if (!mask_by_bytes(rendered, tokenizer, encoded)) encode_by_parts(rendered, tokenizer, encoded);
  } catch (const base::InputError& error) {
    base::fail_input("{}: {}", piece.place, error.what());
  }
  return encoded;
}

}  // namespace

EncodedPiece encode_piece(const DocumentPiece& piece, const Tokenizer& tokenizer, const ChatTemplate* chat,
                          const DatasetOptions& options) {
  if (!piece.messages.is_null()) return encode_chat(piece, tokenizer, chat, options);
  EncodedPiece encoded;
  encoded.tokens = tokenizer.encode(piece.text, {.add_special = false, .parse_special = options.parse_special});
  if (encoded.tokens.empty()) return encoded;
  if (piece.begins) {
    const auto prefix = tokenizer.prefix_ids();
    encoded.tokens.insert(encoded.tokens.begin(), prefix.begin(), prefix.end());
  }
  if (piece.ends && options.add_eos && tokenizer.eos_id()) encoded.tokens.push_back(*tokenizer.eos_id());
  return encoded;
}

}  // namespace gantry::text
