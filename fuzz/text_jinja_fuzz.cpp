// The template language: any bytes either render within their limits or are refused.
#include <cstdint>
#include <ctime>
#include <string_view>

#include "gantry/base/check.h"
#include "gantry/text/jinja_template.h"

namespace {

const gantry::base::OrderedJson& variables() {
  static const auto json = gantry::base::OrderedJson::parse(
      R"({"messages": [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Grüße 😀"},
          {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1, 2.5, true]}}}]}],
          "tools": [{"type": "function", "function": {"name": "f"}}], "bos_token": "<s>", "eos_token": "</s>",
          "add_generation_prompt": true, "n": 7})");
  return json;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  try {
    const gantry::text::jinja::Template chat(source, "fuzz");
    chat.render(variables(), std::tm{}, {.max_steps = 200'000, .max_bytes = 16 << 20});
  } catch (const gantry::base::InputError&) {
  }
  return 0;
}
