#pragma once
// Text of the page: escaping, and numbers as people read them.
#include <string>
#include <string_view>

namespace gantry::cli::report {

/// Text made safe inside HTML elements and quoted attributes. Bytes that are no UTF-8 become U+FFFD, control
/// characters a space.
std::string escape_html(std::string_view text);

/// "12,345.60": thousands separated, a fixed number of decimals.
std::string group_digits(double value, int decimals);
/// Four significant digits, three below 1 ("2.310", "0.0123", "12,345"); "–" for NaN, "infinite" for infinity.
std::string format_number(double value);
/// "1,200", "134.5 M": counts, with a unit from a million on.
std::string format_count(double value);
/// Bytes as a double (from a record) in binary units; "–" for NaN.
std::string format_memory(double bytes);

}  // namespace gantry::cli::report
