// A tokenizer.json from outside, then text through what it describes. The input is the file; its last bytes are the
// text.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "gantry/base/check.h"
#include "gantry/base/json.h"
#include "gantry/text/detokenizer.h"
#include "gantry/text/tokenizer.h"
#include "gantry/text/tokenizer_json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  namespace text = gantry::text;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  try {
    const text::Tokenizer tokenizer(text::parts_from_tokenizer_json(gantry::base::parse_json(input, "fuzz"), "fuzz"));
    const std::string_view sample = input.substr(size - std::min<std::size_t>(size, 200));
    for (const bool parse : {false, true}) {
      const auto ids = tokenizer.encode(sample, {.add_special = true, .parse_special = parse});
      const std::string whole = tokenizer.decode(ids, parse);
      text::StreamingDetokenizer stream(tokenizer, parse);
      std::string joined;
      for (const std::int32_t id : ids) joined += stream.push(id);
      if (joined + stream.flush() != whole) __builtin_trap();
    }
  } catch (const gantry::base::InputError&) {
    // refused, as it should be
  }
  return 0;
}
