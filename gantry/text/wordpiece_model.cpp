#include "gantry/text/wordpiece_model.h"

#include <algorithm>

#include "gantry/text/utf8.h"

namespace gantry::text {
namespace {

std::size_t count_chars(std::string_view text) {
  std::size_t count = 0;
  for (std::size_t position = 0; position < text.size(); ++count) position += decode_utf8(text, position).length;
  return count;
}

}  // namespace

WordPieceModel::WordPieceModel(Vocabulary vocabulary, WordPieceOptions options, std::string_view source)
    : Model(std::move(vocabulary)), options_(std::move(options)), unk_id_(vocabulary_.find(options_.unk_token)) {
  GANTRY_CHECK(unk_id_ != Vocabulary::kNone, "{}: the unknown token '{}' is not in the vocabulary", source,
               options_.unk_token);
  for (std::int32_t id = 0; id < vocabulary_.size(); ++id) {
    if (!vocabulary_.text(id).empty()) trie_.insert(vocabulary_.text(id), id);
  }
  for (const char c : options_.continuing_subword_prefix) {
    has_continuing_ = has_continuing_ && trie_.step(continuing_, c);
  }
}

void WordPieceModel::encode(std::string_view piece, std::vector<std::int32_t>& out) const {
  if (piece.empty()) return;
  const std::size_t start = out.size();
  const bool too_long =
      piece.size() > options_.max_input_chars_per_word && count_chars(piece) > options_.max_input_chars_per_word;
  bool known = !too_long;
  for (std::size_t position = 0; known && position < piece.size();) {
    ByteTrie::Match match;
    if (position == 0)
      match = trie_.longest(piece);
    else if (has_continuing_)
      match = trie_.longest(piece.substr(position), continuing_);
    known = match.id != ByteTrie::kNone;
    if (known) out.push_back(match.id);
    position += match.length;
  }
  if (known) return;
  out.resize(start);
  out.push_back(unk_id_);
}

base::OrderedJson WordPieceModel::to_json() const {
  return {{"type", "WordPiece"},
          {"unk_token", options_.unk_token},
          {"continuing_subword_prefix", options_.continuing_subword_prefix},
          {"max_input_chars_per_word", options_.max_input_chars_per_word},
          {"vocab", vocabulary_json()}};
}

WordLevelModel::WordLevelModel(Vocabulary vocabulary, std::string unk_token)
    : Model(std::move(vocabulary)), unk_token_(std::move(unk_token)), unk_id_(vocabulary_.find(unk_token_)) {}

void WordLevelModel::encode(std::string_view piece, std::vector<std::int32_t>& out) const {
  if (piece.empty()) return;
  const std::int32_t id = vocabulary_.find(piece);
  if (id != Vocabulary::kNone)
    out.push_back(id);
  else if (unk_id_ != Vocabulary::kNone)
    out.push_back(unk_id_);
}

base::OrderedJson WordLevelModel::to_json() const {
  return {{"type", "WordLevel"}, {"vocab", vocabulary_json()}, {"unk_token", unk_token_}};
}

}  // namespace gantry::text
