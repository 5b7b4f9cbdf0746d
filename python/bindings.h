#pragma once
// What the files of the extension share. Torch-free.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/base/json.h"

namespace gantry::python {

namespace py = pybind11;

void bind_text(py::module_& module);
void bind_models(py::module_& module);
void bind_train(py::module_& module);

/// Python objects of a JSON text.
py::object json_to_python(std::string_view json);
/// JSON of Python's dicts, lists, strings, numbers, booleans and None; keys keep their order. TypeError or ValueError
/// for anything else, `what` says of which argument.
base::OrderedJson python_to_json(const py::object& value, const char* what);

/// Token ids of a sequence, a numpy array or a tensor; [[...]] and shape [1, T] count as one sequence. TypeError when
/// they are no integers, InputError when one is outside int32.
std::vector<std::int32_t> ids_from_python(const py::object& ids);

/// str for UTF-8 text; bytes that are none become U+FFFD.
py::str to_str(std::string_view text);

/// While one lives, Ctrl-C also sets base::interrupted(), so that work without the GIL stops early. Python's own
/// handler still hears the signal.
class InterruptScope {
 public:
  InterruptScope();
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

  /// After the work, with the GIL: throws what Python's handler of the signal raises, KeyboardInterrupt by default,
  /// which then carries `message`. Does nothing without an interruption, and outside Python's main thread.
  void raise_if_interrupted(const std::string& message) const;
};

/// Calls `work` without the GIL; Ctrl-C raises KeyboardInterrupt once it has returned.
template <class Work>
auto interruptible(const Work& work) {
  const InterruptScope scope;
  auto result = [&] {
    const py::gil_scoped_release release;
    return work();
  }();
  scope.raise_if_interrupted("interrupted");
  return result;
}

}  // namespace gantry::python
