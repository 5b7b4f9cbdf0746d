#pragma once
// An option set is a plain struct with defaults in place and one `visit_fields` that lists every field once:
//
//   struct SamplingOptions {
//     double temperature = 0.0;
//     template <class Visitor> void visit_fields(Visitor& visit) {
//       visit.group("Sampling");
//       visit("temperature", temperature, "0 picks the likeliest token");
//     }
//   };
//
// The command line, --config files, checkpoint metadata, Python keywords and --help all come from that visit. Field
// types: bool, integers, double, std::string, std::optional of those, AutoCount (a number or "auto"), and
// std::vector<std::string>. Names use underscores in JSON and Python and dashes on the command line.
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "gantry/base/json.h"

namespace gantry::base {

namespace internal {

struct OptionWriter {
  OrderedJson json = OrderedJson::object();

  void group(const char*) {}
  template <class T>
  void operator()(const char* name, const T& value, const char* /*help*/) {
    if constexpr (requires { value.has_value(); }) {
      if (value.has_value()) json[name] = *value;
    } else {
      json[name] = value;
    }
  }
};

struct OptionReader {
  const Json& json;
  std::string_view source;
  std::set<std::string, std::less<>> known;

  void group(const char*) {}
  template <class T>
  void operator()(const char* name, T& value, const char* /*help*/) {
    known.insert(name);
    if (!json.contains(name)) return;
    if constexpr (requires { value.has_value(); }) {
      value = json_get<typename T::value_type>(json, name, source);
    } else {
      value = json_get<T>(json, name, source);
    }
  }
};

}  // namespace internal

/// Writes every field of an option struct to JSON; an unset optional is left out.
template <class Options>
OrderedJson options_to_json(const Options& options) {
  internal::OptionWriter writer;
  const_cast<Options&>(options).visit_fields(writer);  // one visit serves readers and writers; this one only reads
  return std::move(writer.json);
}

/// Sets the fields named in `json`; an unknown name or a wrong type throws InputError naming `source`.
template <class Options>
void options_from_json(Options& options, const Json& json, std::string_view source) {
  GANTRY_CHECK(json.is_object(), "{}: expected an object of options, found {}", source, json.type_name());
  internal::OptionReader reader{json, source, {}};
  options.visit_fields(reader);
  for (const auto& [key, ignored] : json.items()) {
    GANTRY_CHECK(reader.known.contains(key), "{}: unknown option '{}'", source, key);
  }
}

}  // namespace gantry::base
