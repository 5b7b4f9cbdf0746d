// The extension module gantry._core: errors, Ctrl-C, and conversions between Python's and our types.
#include <fmt/ranges.h>
#include <pybind11/pybind11.h>

#include <csignal>
#include <mutex>
#include <new>

#include "gantry/base/check.h"
#include "gantry/base/interrupt.h"
#include "python/bindings.h"
#include "python/options.h"

namespace gantry::python {
namespace {

// Owned by the module, which lives as long as the process.
PyObject* error_type = nullptr;
PyObject* input_error_type = nullptr;

void set_error(PyObject* type, std::string_view message) { PyErr_SetObject(type, to_str(message).ptr()); }

// libtorch appends a C++ stack trace to its messages; people need what stands before it.
std::string_view without_trace(std::string_view message) {
  return message.substr(0, message.find("\nException raised from"));
}

void translate(std::exception_ptr pointer) {
  try {
    std::rethrow_exception(pointer);
  } catch (const py::builtin_exception&) {
    throw;
  } catch (const py::error_already_set&) {
    throw;
  } catch (const base::InputError& error) {
    set_error(input_error_type, error.what());
  } catch (const base::Interrupted& error) {
    set_error(PyExc_KeyboardInterrupt, error.what());
  } catch (const base::Error& error) {
    set_error(error_type, error.what());
  } catch (const std::bad_alloc&) {
    set_error(PyExc_MemoryError, "out of memory; use a smaller model, batch or sequence length");
  } catch (const std::runtime_error& error) {
    set_error(PyExc_RuntimeError, without_trace(error.what()));
  } catch (const std::exception& error) {
    // c10::Error derives from std::exception alone, as do pybind11's refusals of a cast, which it explains better
    // itself.
    if (std::string_view(error.what()).find("\nException raised from") == std::string_view::npos) throw;
    set_error(PyExc_RuntimeError, without_trace(error.what()));
  }
}

PyObject* make_error(py::module_& module, const char* name, PyObject* base, const char* doc) {
  const std::string full = std::string("gantry.") + name;
  PyObject* type = PyErr_NewExceptionWithDoc(full.c_str(), doc, base, nullptr);
  if (type == nullptr) throw py::error_already_set();
  module.attr(name) = py::handle(type);
  return type;
}

std::mutex scopes_mutex;
int scopes = 0;
bool handler_replaced = false;
struct sigaction python_action {};

void on_interrupt(int signal) {
  base::set_interrupted(true);
  python_action.sa_handler(signal);  // only notes the signal
}

std::string type_name(const py::handle& value) { return py::type::of(value).attr("__name__").cast<std::string>(); }

[[noreturn]] void fail_type(const char* name, const char* expected, const py::handle& value) {
  throw py::type_error(fmt::format("{}: expected {}, got {}", name, expected, type_name(value)));
}

bool is_integer(const py::handle& value) { return PyIndex_Check(value.ptr()) != 0 && !PyBool_Check(value.ptr()); }

py::object to_integer(const py::handle& value) {
  auto integer = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  if (!integer) throw py::error_already_set();
  return integer;
}

bool is_text(const py::handle& value) { return py::isinstance<py::str>(value) || py::hasattr(value, "__fspath__"); }

}  // namespace

py::str to_str(std::string_view text) {
  auto str = py::reinterpret_steal<py::str>(
      PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
  if (!str) throw py::error_already_set();
  return str;
}

py::object json_to_python(std::string_view json) { return py::module_::import("json").attr("loads")(to_str(json)); }

base::OrderedJson python_to_json(const py::object& value, const char* what) {
  std::string text;
  try {
    text = py::module_::import("json").attr("dumps")(value, py::arg("allow_nan") = false).cast<std::string>();
  } catch (py::error_already_set& error) {
    py::raise_from(error, error.type().ptr(), fmt::format("{}: not plain data", what).c_str());
    throw py::error_already_set();
  }
  try {
    return base::OrderedJson::parse(text);
  } catch (const base::OrderedJson::exception&) {
    base::fail_input("{}: a string holds half of a surrogate pair, which is no text", what);
  }
}

std::vector<std::int32_t> ids_from_python(const py::object& source) {
  py::object ids = py::hasattr(source, "tolist") ? source.attr("tolist")() : source;
  if (py::isinstance<py::list>(ids) && py::len(ids) == 1) {
    py::object first = ids[py::int_(0)];
    if (py::isinstance<py::list>(first)) ids = first;
  }
  if (!py::isinstance<py::iterable>(ids)) fail_type("ids", "a sequence of token ids", ids);
  std::vector<std::int32_t> result;
  for (const py::handle item : ids) {
    if (!is_integer(item)) fail_type("ids", "integers", item);
    int overflow = 0;
    const long long id = PyLong_AsLongLongAndOverflow(to_integer(item).ptr(), &overflow);
    GANTRY_CHECK(overflow == 0 && std::in_range<std::int32_t>(id), "ids: {} is no token id",
                 py::str(item).cast<std::string>());
    result.push_back(static_cast<std::int32_t>(id));
  }
  return result;
}

InterruptScope::InterruptScope() {
  const std::lock_guard lock(scopes_mutex);
  if (scopes++ > 0) return;
  base::set_interrupted(false);
  ::sigaction(SIGINT, nullptr, &python_action);
  handler_replaced = (python_action.sa_flags & SA_SIGINFO) == 0 && python_action.sa_handler != SIG_DFL &&
                     python_action.sa_handler != SIG_IGN;
  if (!handler_replaced) return;
  struct sigaction ours = python_action;
  ours.sa_handler = on_interrupt;
  ::sigaction(SIGINT, &ours, nullptr);
}

InterruptScope::~InterruptScope() {
  const std::lock_guard lock(scopes_mutex);
  if (--scopes > 0) return;
  if (handler_replaced) ::sigaction(SIGINT, &python_action, nullptr);
  base::set_interrupted(false);
}

void InterruptScope::raise_if_interrupted(const std::string& message) const {
  if (!base::interrupted() || PyErr_CheckSignals() == 0) return;
  if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) != 0) {
    PyErr_Clear();
    throw base::Interrupted(message);
  }
  throw py::error_already_set();
}

void assign(const char* name, const py::handle& value, bool& field) {
  if (!PyBool_Check(value.ptr())) fail_type(name, "True or False", value);
  field = value.ptr() == Py_True;
}

void assign(const char* name, const py::handle& value, std::int64_t& field) {
  if (!is_integer(value)) fail_type(name, "an integer", value);
  int overflow = 0;
  field = PyLong_AsLongLongAndOverflow(to_integer(value).ptr(), &overflow);
  GANTRY_CHECK(overflow == 0, "{}: {} is out of range", name, py::str(value).cast<std::string>());
}

void assign(const char* name, const py::handle& value, std::uint64_t& field) {
  if (!is_integer(value)) fail_type(name, "an integer", value);
  field = PyLong_AsUnsignedLongLong(to_integer(value).ptr());
  if (PyErr_Occurred() == nullptr) return;
  PyErr_Clear();
  base::fail_input("{}: {} is out of range, expected 0 to 2^64 - 1", name, py::str(value).cast<std::string>());
}

void assign(const char* name, const py::handle& value, double& field) {
  if (PyBool_Check(value.ptr()) || PyNumber_Check(value.ptr()) == 0) fail_type(name, "a number", value);
  field = PyFloat_AsDouble(value.ptr());
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
}

void assign(const char* name, const py::handle& value, std::string& field) {
  if (!is_text(value)) fail_type(name, "a str or a path", value);
  field = py::module_::import("os").attr("fspath")(value).cast<std::string>();
}

void assign(const char* name, const py::handle& value, std::vector<std::string>& field) {
  field.clear();
  if (is_text(value)) {
    assign(name, value, field.emplace_back());
    return;
  }
  if (!py::isinstance<py::iterable>(value)) fail_type(name, "a list of str", value);
  for (const py::handle item : value) assign(name, item, field.emplace_back());
}

void assign(const char* name, const py::handle& value, base::AutoCount& field) {
  if (is_text(value)) {
    std::string word;
    assign(name, value, word);
    field = base::AutoCount::parse(word, name);
    return;
  }
  if (!is_integer(value)) fail_type(name, "an integer or 'auto'", value);
  std::int64_t count = 0;
  assign(name, value, count);
  field = count;
}

void internal::fail_unknown(const char* function, const std::string& keyword, const std::vector<std::string>& names) {
  throw py::type_error(
      fmt::format("{}() has no option '{}'; its options are {}", function, keyword, fmt::join(names, ", ")));
}

std::string internal::describe(const py::dict& fields) {
  std::string text = "\n\nOptions:\n";
  for (const auto& [name, field] : fields) {
    const py::tuple pair = py::reinterpret_borrow<py::tuple>(field);
    text += fmt::format("    {} = {}: {}\n", py::str(name).cast<std::string>(), py::repr(pair[0]).cast<std::string>(),
                        pair[1].cast<std::string>());
  }
  return text;
}

}  // namespace gantry::python

PYBIND11_MODULE(_core, module) {
  using namespace gantry::python;
  module.doc() = "The compiled part of the package gantry.";
  module.attr("__version__") = GANTRY_VERSION;
  error_type = make_error(module, "Error", PyExc_RuntimeError, "A failure while running: disk full, divergence.");
  input_error_type = make_error(module, "InputError", PyExc_ValueError,
                                "Bad input: a damaged file, an option out of range, ids outside the vocabulary. The "
                                "message names it and says what was expected.");
  py::register_local_exception_translator(translate);
  bind_text(module);
  bind_models(module);
  bind_train(module);
}
