#pragma once
// The whole page from its parts and the templates in web/.
#include <span>
#include <string>
#include <string_view>

#include "gantry/cli/report/records.h"

namespace gantry::cli::report {

/// One self-contained HTML document; needs one run or more.
std::string page_html(std::span<const RunRecords> runs);

/// The text with every {{name}} replaced by what `value(name)` gives. What is put in is not searched again.
template <class Value>
std::string fill_template(std::string_view text, Value value) {
  std::string out;
  for (auto open = text.find("{{"); open != std::string_view::npos; open = text.find("{{")) {
    const auto close = text.find("}}", open);
    if (close == std::string_view::npos) break;
    out += text.substr(0, open);
    out += value(text.substr(open + 2, close - open - 2));
    text.remove_prefix(close + 2);
  }
  out += text;
  return out;
}

}  // namespace gantry::cli::report
