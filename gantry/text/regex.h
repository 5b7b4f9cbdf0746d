#pragma once
// Regular expressions of tokeniser files, on PCRE2 with JIT. The files write them for Oniguruma (Ruby syntax), as the
// `tokenizers` library does, so patterns are translated first. Patterns are untrusted: matching is limited in work and
// memory and throws rather than hangs.
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace gantry::text {

/// Members of a bracket expression for the word characters of Unicode's regular expressions (Alphabetic, M, Nd, Pc and
/// joiners); Oniguruma's \w differs a little.
extern const char* const kUnicodeWordSet;

/// Rewrites an Oniguruma pattern for PCRE2 with Unicode properties: \w \s \h, their negations, \b and \uXXXX. Throws
/// InputError, starting with `source`, for class syntax that PCRE2 lacks (nested classes, intersections).
std::string translate_pattern(std::string_view pattern, std::string_view source);

/// A compiled pattern; copies share it. find() may be called from several threads at once.
class Regex {
 public:
  struct Match {
    std::size_t begin = 0;
    std::size_t end = 0;
  };

  /// Compiles an Oniguruma pattern; throws InputError naming `source`, the pattern and the place of the error.
  Regex(std::string_view pattern, std::string_view source);

  /// The first match at or after `from` (on a character boundary). `text` must be valid UTF-8. Throws InputError when
  /// the pattern needs more work on this text than the limit allows.
  std::optional<Match> find(std::string_view text, std::size_t from) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

/// A pattern that matches `literal` and nothing else.
std::string escape_pattern(std::string_view literal);

}  // namespace gantry::text
