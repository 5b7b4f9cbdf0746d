#include <charconv>
#include <cmath>
#include <optional>

#include "gantry/text/jinja_builtins.h"
#include "gantry/text/jinja_operations.h"
#include "gantry/text/jinja_unicode.h"

namespace gantry::text::jinja {
namespace {

/// Python's float(text).
std::optional<double> parse_real(std::string_view text) {
  text = strip(text, Side::kBoth);
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  if (text.empty() || text.front() == '+') return std::nullopt;
  double value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ptr != text.data() + text.size()) return std::nullopt;
  if (result.ec == std::errc::result_out_of_range) return text.front() == '-' ? -HUGE_VAL : HUGE_VAL;
  return result.ec == std::errc() ? std::optional(value) : std::nullopt;
}

/// Python's int(text, base) for values of 64 bits.
std::optional<std::int64_t> parse_integer(std::string_view text, std::int64_t base) {
  text = strip(text, Side::kBoth);
  const bool negative = !text.empty() && text.front() == '-';
  if (!text.empty() && (negative || text.front() == '+')) text.remove_prefix(1);
  if (text.size() > 2 && text[0] == '0') {
    const char mark = static_cast<char>(text[1] | 0x20);
    if ((base == 16 && mark == 'x') || (base == 8 && mark == 'o') || (base == 2 && mark == 'b')) text.remove_prefix(2);
  }
  if (text.empty() || text.front() == '-') return std::nullopt;
  std::int64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value, static_cast<int>(base));
  if (result.ptr != text.data() + text.size() || result.ec == std::errc::invalid_argument) return std::nullopt;
  if (result.ec != std::errc()) template_error("int: '{}' leaves the range of 64 bits", text);
  return negative ? -value : value;
}

std::int64_t truncate(double value) {
  if (!(std::abs(value) < 0x1p63)) template_error("int: {} leaves the range of 64 bits", value);
  return static_cast<std::int64_t>(value);
}

Value to_int(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound("int", arguments, {"default", "base"});
  const std::int64_t base = bound.integer(1, 10);
  if (base < 2 || base > 36) template_error("int: the base {} is not between 2 and 36", base);
  const Value fallback = bound.find(0) != nullptr ? *bound.find(0) : Value::integer(0);
  if (value.is_integral()) return Value::integer(value.as_int());
  if (value.is(Kind::kFloat))
    return std::isfinite(value.as_double()) ? Value::integer(truncate(value.as_double())) : fallback;
  check_defined(value, "integer form");
  if (!value.is_string()) return fallback;
  if (const auto number = parse_integer(value.as_string(), base)) return Value::integer(*number);
  const auto real = parse_real(value.as_string());
  return real && std::isfinite(*real) ? Value::integer(truncate(*real)) : fallback;
}

Value to_float(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound("float", arguments, {"default"});
  if (value.is_number()) return Value::real(value.as_double());
  check_defined(value, "float form");
  if (value.is_string()) {
    if (const auto real = parse_real(value.as_string())) return Value::real(*real);
  }
  return bound.find(0) != nullptr ? *bound.find(0) : Value::real(0);
}

Value absolute(Interpreter&, const Value& value, Arguments&) {
  if (!value.is_number()) template_error("abs needs a number, found {}", value.type_name());
  if (value.is(Kind::kFloat)) return Value::real(std::abs(value.as_double()));
  return value.as_int() < 0 ? negate(value) : Value::integer(value.as_int());
}

/// Half to even on the decimal digits, as Python rounds.
double round_decimal(double value, int digits) {
  if (!std::isfinite(value)) return value;
  if (digits <= 0) {
    const double scale = std::pow(10.0, -digits);
    return std::nearbyint(value / scale) * scale;
  }
  if (digits > 300) return value;
  std::string text = fmt::format("{:.{}f}", value, digits);
  double result = value;
  std::from_chars(text.data(), text.data() + text.size(), result);
  return result;
}

Value round_filter(Interpreter&, const Value& value, Arguments& arguments) {
  const Bound bound("round", arguments, {"precision", "method"});
  if (!value.is_number()) template_error("round needs a number, found {}", value.type_name());
  const std::int64_t precision = bound.integer(0, 0);
  const std::string method = bound.text(1, "common");
  if (precision < -300 || precision > 300) template_error("round: a precision of {} makes no sense", precision);
  if (method == "common") {
    if (value.is_integral() && precision >= 0) return Value::integer(value.as_int());
    const double rounded = round_decimal(value.as_double(), static_cast<int>(precision));
    return value.is_integral() ? Value::integer(truncate(rounded)) : Value::real(rounded);
  }
  if (method != "ceil" && method != "floor") template_error("round: 'method' must be common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = value.as_double() * scale;
  return Value::real((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

}  // namespace

Filter find_number_filter(std::string_view name) {
  static constexpr std::pair<std::string_view, Filter> kFilters[] = {
      {"int", to_int}, {"float", to_float}, {"abs", absolute}, {"round", round_filter}};
  for (const auto& [key, filter] : kFilters) {
    if (key == name) return filter;
  }
  return nullptr;
}

}  // namespace gantry::text::jinja
