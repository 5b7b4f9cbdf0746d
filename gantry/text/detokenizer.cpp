#include "gantry/text/detokenizer.h"

#include "gantry/text/decoder.h"
#include "gantry/text/tokenizer_state.h"
#include "gantry/text/utf8.h"

namespace gantry::text {

struct StreamingDetokenizer::State {
  const Tokenizer* tokenizer;
  bool skip_special;
  Decoder::State decoder;
  std::string pending;  // bytes of a character that has begun
};

StreamingDetokenizer::StreamingDetokenizer(const Tokenizer& tokenizer, bool skip_special)
    : state_(new State{&tokenizer, skip_special, {}, {}}) {}
StreamingDetokenizer::~StreamingDetokenizer() = default;
StreamingDetokenizer::StreamingDetokenizer(StreamingDetokenizer&&) noexcept = default;
StreamingDetokenizer& StreamingDetokenizer::operator=(StreamingDetokenizer&&) noexcept = default;

std::string StreamingDetokenizer::push(std::int32_t id) {
  state_->tokenizer->state_->append_decoded(id, state_->skip_special, state_->decoder, state_->pending);
  const std::size_t whole = state_->pending.size() - incomplete_utf8_tail(state_->pending);
  std::string text = replace_invalid_utf8(std::string_view(state_->pending).substr(0, whole));
  state_->pending.erase(0, whole);
  return text;
}

std::string StreamingDetokenizer::flush() {
  state_->tokenizer->state_->decoder.finish(state_->decoder, state_->pending);
  std::string text = replace_invalid_utf8(state_->pending);
  state_->pending.clear();
  return text;
}

}  // namespace gantry::text
