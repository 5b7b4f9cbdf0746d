#pragma once
// Decoders of a tokenizer.json: from token spellings back to bytes, one token at a time.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/base/json.h"
#include "gantry/text/regex.h"

namespace gantry::text {

class Decoder {
 public:
  /// `config` is the "decoder" value; null makes one that joins tokens with spaces. Throws InputError naming `source`
  /// for an unknown or malformed step.
  Decoder(const base::Json& config, std::string_view source);

  /// Where a text stands.
  struct State {
    bool first = true;         ///< no token yet
    std::size_t stripped = 0;  ///< characters taken off the start so far
    bool stripping = true;
    std::string waiting;  ///< text that must not be given out before the end is known
  };

  /// Appends the bytes of `token` to `out`. `verbatim` tokens (added ones) are not read as byte spellings.
  void append(std::string_view token, bool verbatim, State& state, std::string& out) const;
  /// Appends what was held back and resets the state.
  void finish(State& state, std::string& out) const;
  /// What a token stands for in the middle of a text.
  std::string token_bytes(std::string_view token, bool verbatim) const;

 private:
  enum class Kind { kByteLevel, kByteFallback, kReplace, kStrip, kMetaspace, kWordPiece, kSuffix, kJoinWithSpace };
  struct Step {
    Kind kind;
    std::string text;  // content, prefix, suffix or replacement, by kind
    std::optional<Regex> regex = std::nullopt;
    std::size_t start = 0;  // kStrip
    std::size_t stop = 0;
    bool flag = false;  // kMetaspace: drop the prefix of the first token; kWordPiece: clean up
  };
  void add(const base::Json& config, std::string_view source);
  void add_step(const std::string& type, const base::Json& config, std::string_view source);
  void run(const Step& step, bool verbatim, State& state, std::string& token) const;
  void strip_start(State& state, std::string& text) const;

  std::vector<Step> token_steps_;
  std::vector<Step> text_steps_;  // after Fuse
  bool fused_ = false;
  bool joins_with_space_ = false;
  bool holds_back_ = false;  // a text step needs the whole text
};

}  // namespace gantry::text
