#pragma once
// Tokens beside the model's own: control tokens and user-defined words, which are cut out of a text before anything
// else.
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "gantry/text/byte_trie.h"
#include "gantry/text/normalizer.h"

namespace gantry::text {

struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool special = false;      ///< a control token: skipped on request when decoding, not parsed out of user text
  bool single_word = false;  ///< only between characters that are no part of a word
  bool lstrip = false;       ///< takes white space before it
  bool rstrip = false;       ///< takes white space behind it
  bool normalized = false;   ///< looked for in the normalised text
};

class AddedTokens {
 public:
  /// Throws InputError naming `source` for an empty or overlong token, or one id given to two tokens.
  AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer, std::string_view source);

  const std::vector<AddedToken>& all() const { return tokens_; }
  /// nullptr for an id that is not an added token.
  const AddedToken* find(std::int32_t id) const;
  std::int32_t id_of(std::string_view content) const;
  bool any_normalized() const { return !normalized_.empty(); }

  /// Calls text(piece, begin) and token(id) in order over `input`; tokens of the chosen kind only. Of tokens that begin
  /// at one place the longest counts. With `parse_special` false, special tokens stay text.
  void split(std::string_view input, bool normalized, bool parse_special,
             const std::function<void(std::string_view, std::size_t)>& text,
             const std::function<void(std::int32_t)>& token) const;

 private:
  struct Found {
    std::size_t begin;
    std::size_t end;
  };
  bool accept(const AddedToken& token, std::string_view input, std::size_t done, Found& found) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::int32_t, std::size_t> by_id_;
  ByteTrie raw_;         // to indices of tokens_
  ByteTrie normalized_;  // the same, spelled as the normaliser leaves them
};

}  // namespace gantry::text
