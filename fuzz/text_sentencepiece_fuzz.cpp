// A SentencePiece model from outside, then text through it.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "gantry/base/check.h"
#include "gantry/text/sentencepiece.h"
#include "gantry/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  namespace text = gantry::text;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  try {
    const text::Tokenizer tokenizer(
        text::parts_from_sentencepiece(text::parse_sentencepiece(input, "fuzz"), {true, true}));
    const std::string_view sample = input.substr(0, std::min<std::size_t>(size, 300));
    const auto ids = tokenizer.encode(sample, {.add_special = true});
    tokenizer.decode(ids);
    for (std::int32_t id = 0; id < std::min(tokenizer.vocab_size(), 300); ++id) tokenizer.token_bytes(id);
  } catch (const gantry::base::InputError&) {
    // refused, as it should be
  }
  return 0;
}
