#pragma once
// Text out of a stream of token ids, as a generation prints it.
#include <cstdint>
#include <memory>
#include <string>

namespace gantry::text {

class Tokenizer;

/// Emits text as soon as it is certain and never half a character: the pieces of push() and the last of flush(),
/// joined, equal Tokenizer::decode of the ids. Keeps a reference to the tokeniser.
class StreamingDetokenizer {
 public:
  explicit StreamingDetokenizer(const Tokenizer& tokenizer, bool skip_special = true);
  ~StreamingDetokenizer();
  StreamingDetokenizer(StreamingDetokenizer&&) noexcept;
  StreamingDetokenizer& operator=(StreamingDetokenizer&&) noexcept;

  /// Text that became certain with this id, often "". Throws InputError for an id outside the vocabulary.
  std::string push(std::int32_t id);
  /// The rest (an unfinished character becomes U+FFFD); afterwards a new text may start.
  std::string flush();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gantry::text
