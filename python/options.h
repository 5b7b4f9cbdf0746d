#pragma once
// Python keywords from the visit of an option struct (gantry/base/options.h). Torch-free.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/base/auto_count.h"

namespace gantry::python {

namespace py = pybind11;

/// Names of the fields that a function takes; empty: all of the struct.
using FieldNames = std::vector<std::string_view>;

// TypeError naming the option when the value is of another type. Text may be a path, a list of texts a single one.
void assign(const char* name, const py::handle& value, bool& field);
void assign(const char* name, const py::handle& value, std::int64_t& field);
void assign(const char* name, const py::handle& value, std::uint64_t& field);
void assign(const char* name, const py::handle& value, double& field);
void assign(const char* name, const py::handle& value, std::string& field);
void assign(const char* name, const py::handle& value, std::vector<std::string>& field);
void assign(const char* name, const py::handle& value, base::AutoCount& field);
template <class T>
void assign(const char* name, const py::handle& value, std::optional<T>& field) {
  if (value.is_none()) {
    field.reset();
  } else {
    assign(name, value, field.emplace());
  }
}

inline py::object to_python(bool value) { return py::bool_(value); }
inline py::object to_python(std::int64_t value) { return py::int_(value); }
inline py::object to_python(std::uint64_t value) { return py::int_(value); }
inline py::object to_python(double value) { return py::float_(value); }
inline py::object to_python(const std::string& value) { return py::str(value); }
inline py::object to_python(const std::vector<std::string>& value) {
  py::list list;
  for (const std::string& item : value) list.append(item);
  return list;
}
inline py::object to_python(const base::AutoCount& value) {
  return value.is_auto() ? to_python(value.text()) : to_python(value.count());
}
template <class T>
py::object to_python(const std::optional<T>& value) {
  return value ? to_python(*value) : py::none();
}

namespace internal {

struct Visitor {
  const FieldNames& taken;

  void group(const char*) {}
  bool takes(std::string_view name) const {
    return taken.empty() || std::find(taken.begin(), taken.end(), name) != taken.end();
  }
};

struct Setter : Visitor {
  const py::dict& keywords;
  std::vector<std::string> names = {};

  template <class T>
  void operator()(const char* name, T& field, const char* /*help*/) {
    if (!takes(name)) return;
    names.emplace_back(name);
    if (keywords.contains(name)) assign(name, keywords[name], field);
  }
};

struct Lister : Visitor {
  py::dict fields = {};

  template <class T>
  void operator()(const char* name, const T& field, const char* help) {
    if (takes(name)) fields[name] = py::make_tuple(to_python(field), help);
  }
};

[[noreturn]] void fail_unknown(const char* function, const std::string& keyword, const std::vector<std::string>& names);
std::string describe(const py::dict& fields);

}  // namespace internal

/// Sets the fields that `keywords` name. TypeError for a name that `function` doesn't take; the message lists those it
/// does.
template <class Options>
void set_options(Options& options, const py::dict& keywords, const char* function, const FieldNames& taken = {}) {
  internal::Setter setter{{taken}, keywords};
  options.visit_fields(setter);
  for (const auto& [key, value] : keywords) {
    const auto keyword = py::cast<std::string>(key);
    if (std::find(setter.names.begin(), setter.names.end(), keyword) == setter.names.end()) {
      internal::fail_unknown(function, keyword, setter.names);
    }
  }
}

/// name -> (value, help) of every field.
template <class Options>
py::dict list_options(const Options& options, const FieldNames& taken = {}) {
  internal::Lister lister{{taken}};
  const_cast<Options&>(options).visit_fields(lister);  // one visit serves readers and writers; this one only reads
  return lister.fields;
}

/// Lines of a docstring, one a field.
template <class Options>
std::string describe_options(const FieldNames& taken = {}) {
  return internal::describe(list_options(Options{}, taken));
}

}  // namespace gantry::python
