#define PCRE2_CODE_UNIT_WIDTH 8
#include "gantry/text/regex.h"

#include <pcre2.h>

#include "gantry/base/check.h"

namespace gantry::text {
namespace {

constexpr std::size_t kMaxPatternBytes = 64 << 10;
constexpr std::uint32_t kMatchLimit = 5'000'000;  // backtracking steps of one match; common patterns need a few
constexpr std::uint32_t kHeapLimitKib = 256 << 10;
constexpr std::size_t kJitStackBytes = 8 << 20;

// What one thread needs to match any pattern.
struct MatchScratch {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr);

  MatchScratch() {
    if (data == nullptr || context == nullptr) base::fail("out of memory for regular expressions");
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_heap_limit(context, kHeapLimitKib);
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~MatchScratch() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  MatchScratch(const MatchScratch&) = delete;
  MatchScratch& operator=(const MatchScratch&) = delete;
};

std::string error_text(int code) {
  unsigned char buffer[256];
  const int length = pcre2_get_error_message(code, buffer, sizeof buffer);
  return length < 0 ? fmt::format("error {}", code)
                    : std::string(reinterpret_cast<const char*>(buffer), static_cast<std::size_t>(length));
}

}  // namespace

struct Regex::Code {
  pcre2_code* compiled = nullptr;
  std::string pattern;
  std::string source;
  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(compiled); }
};

Regex::Regex(std::string_view pattern, std::string_view source) {
  GANTRY_CHECK(pattern.size() <= kMaxPatternBytes, "{}: a pattern of {} bytes is longer than the limit of {}", source,
               pattern.size(), kMaxPatternBytes);
  const std::string translated = translate_pattern(pattern, source);
  auto code = std::make_shared<Code>();
  code->pattern = pattern;
  code->source = source;
  int error = 0;
  std::size_t offset = 0;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  if (context == nullptr) base::fail("out of memory for regular expressions");
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  code->compiled =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context);
  pcre2_compile_context_free(context);
  GANTRY_CHECK(code->compiled != nullptr, "{}: pattern '{}' does not compile: {} at offset {} of '{}'", source, pattern,
               error_text(error), offset, translated);
  pcre2_jit_compile(code->compiled, PCRE2_JIT_COMPLETE);  // where it fails, matching falls back to the interpreter
  code_ = std::move(code);
}

std::optional<Regex::Match> Regex::find(std::string_view text, std::size_t from) const {
  thread_local MatchScratch scratch;
  const int result = pcre2_match(code_->compiled, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                 PCRE2_NO_UTF_CHECK, scratch.data, scratch.context);
  if (result == PCRE2_ERROR_NOMATCH) return std::nullopt;
  GANTRY_CHECK(result >= 0,
               "{}: pattern '{}' is too costly on this text of {} bytes ({}); split the text or simplify it",
               code_->source, code_->pattern, text.size(), error_text(result));
  const std::size_t* span = pcre2_get_ovector_pointer(scratch.data);
  // \K inside a lookahead can move the start behind the end or before `from`.
  const std::size_t begin = span[0] < from ? from : span[0];
  return Match{begin, span[1] < begin ? begin : span[1]};
}

}  // namespace gantry::text
