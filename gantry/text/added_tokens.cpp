#include "gantry/text/added_tokens.h"

#include "gantry/base/check.h"
#include "gantry/text/unicode.h"
#include "gantry/text/utf8.h"

namespace gantry::text {
namespace {

constexpr std::size_t kMaxTokenBytes = 1024;

// The last character before `end`.
DecodedChar char_before(std::string_view text, std::size_t end) {
  std::size_t begin = end - 1;
  while (begin > 0 && end - begin < 4 && (static_cast<unsigned char>(text[begin]) & 0xc0u) == 0x80u) --begin;
  return decode_utf8(text, begin);
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer, std::string_view source)
    : tokens_(std::move(tokens)) {
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    GANTRY_CHECK(!token.content.empty() && token.content.size() <= kMaxTokenBytes,
                 "{}: the added token with id {} has {} bytes, expected 1 to {}", source, token.id,
                 token.content.size(), kMaxTokenBytes);
    const bool is_new = by_id_.emplace(token.id, i).second;
    GANTRY_CHECK(is_new, "{}: id {} is given to two added tokens, '{}' and '{}'", source, token.id,
                 tokens_[by_id_[token.id]].content, token.content);
    if (token.normalized && !normalizer.changes_nothing()) {
      const std::string spelled = is_valid_utf8(token.content) ? normalizer.apply(token.content) : token.content;
      if (!spelled.empty()) normalized_.insert(spelled, static_cast<std::int32_t>(i));
    } else {
      raw_.insert(token.content, static_cast<std::int32_t>(i));
    }
  }
}

const AddedToken* AddedTokens::find(std::int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

std::int32_t AddedTokens::id_of(std::string_view content) const {
  for (const ByteTrie* trie : {&raw_, &normalized_}) {
    const ByteTrie::Match match = trie->longest(content);
    if (match.id != ByteTrie::kNone && tokens_[static_cast<std::size_t>(match.id)].content == content) {
      return tokens_[static_cast<std::size_t>(match.id)].id;
    }
  }
  for (const AddedToken& token : tokens_) {
    if (token.content == content) return token.id;
  }
  return ByteTrie::kNone;
}

bool AddedTokens::accept(const AddedToken& token, std::string_view input, std::size_t done, Found& found) const {
  if (token.single_word) {
    if (found.begin > 0 && is_word_char(char_before(input, found.begin).code)) return false;
    if (found.end < input.size() && is_word_char(decode_utf8(input, found.end).code)) return false;
  }
  while (token.lstrip && found.begin > done) {
    const DecodedChar c = char_before(input, found.begin);
    if (!is_white_space(c.code) || found.begin - c.length < done) break;
    found.begin -= c.length;
  }
  while (token.rstrip && found.end < input.size()) {
    const DecodedChar c = decode_utf8(input, found.end);
    if (!is_white_space(c.code)) break;
    found.end += c.length;
  }
  return true;
}

void AddedTokens::split(std::string_view input, bool normalized, bool parse_special,
                        const std::function<void(std::string_view, std::size_t)>& text,
                        const std::function<void(std::int32_t)>& token) const {
  const ByteTrie& trie = normalized ? normalized_ : raw_;
  std::size_t done = 0;
  for (std::size_t at = 0; !trie.empty() && at < input.size();) {
    const ByteTrie::Match match = trie.longest(input.substr(at));
    if (match.id == ByteTrie::kNone) {
      ++at;
      continue;
    }
    const AddedToken& found_token = tokens_[static_cast<std::size_t>(match.id)];
    Found found{at, at + match.length};
    at = found.end;
    if ((found_token.special && !parse_special) || !accept(found_token, input, done, found)) continue;
    if (found.begin > done) text(input.substr(done, found.begin - done), done);
    token(found_token.id);
    done = at = found.end;
  }
  if (done < input.size()) text(input.substr(done), done);
}

}  // namespace gantry::text
