#pragma once
// Normalisers of a tokenizer.json: rewrite a text before it is cut.
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/base/json.h"

namespace gantry::text {

class Normalizer {
 public:
  /// `config` is the "normalizer" value; null makes one that changes nothing. Throws InputError naming `source` for an
  /// unknown or malformed step.
  Normalizer(const base::Json& config, std::string_view source);

  /// `text` must be valid UTF-8, and so is the result. Throws InputError when steps of a forged file blow it up.
  std::string apply(std::string text) const;
  bool changes_nothing() const { return steps_.empty(); }

 private:
  using Step = std::function<std::string(std::string)>;
  void add(const base::Json& config, std::string_view source);
  void add_bert(const base::Json& config, std::string_view source);

  std::vector<Step> steps_;
};

class Regex;
/// Replaces every match of `pattern` by `content`, literally.
std::string replace_all(std::string_view text, const Regex& pattern, std::string_view content);

}  // namespace gantry::text
