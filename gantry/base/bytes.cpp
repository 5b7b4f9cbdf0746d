#include "gantry/base/bytes.h"

#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <string>

#include "gantry/base/check.h"

namespace gantry::base {

std::uint64_t parse_bytes(std::string_view text, std::string_view what) {
  struct Unit {
    std::string_view name;
    double bytes;
  };
  static constexpr std::array<Unit, 10> kUnits = {{{"", 1},
                                                   {"b", 1},
                                                   {"kib", 0x1p10},
                                                   {"mib", 0x1p20},
                                                   {"gib", 0x1p30},
                                                   {"tib", 0x1p40},
                                                   {"kb", 1e3},
                                                   {"mb", 1e6},
                                                   {"gb", 1e9},
                                                   {"tb", 1e12}}};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit;
  for (const char c : text.substr(static_cast<std::size_t>(end - text.data()))) {
    if (c != ' ') unit += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  for (const Unit& known : kUnits) {
    if (error != std::errc() || unit != known.name) continue;
    const double bytes = number * known.bytes;
    GANTRY_CHECK(bytes >= 1 && bytes <= 0x1p62, "{} is '{}', expected from 1 byte to 2^62", what, text);
    return static_cast<std::uint64_t>(std::llround(bytes));
  }
  fail_input("{} is '{}', expected a number and a unit, as 3GiB or 800MB", what, text);
}

}  // namespace gantry::base
