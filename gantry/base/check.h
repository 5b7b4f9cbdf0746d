#pragma once
// Errors and checks. Three audiences:
//   GANTRY_CHECK       the caller or an input file is at fault: throws InputError, always on
//   GANTRY_ASSERT      we are at fault: aborts with the place, debug builds only
//   GANTRY_UNREACHABLE a branch that cannot be taken
// Messages say what was expected, what was found and what to do; fmt's format strings carry the values.
#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace gantry::base {

/// Failed while running (exit code 1): disk full, killed, out of memory.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Wrong usage or bad input (exit code 2).
class InputError : public Error {
 public:
  using Error::Error;
};

/// No answer satisfies the constraints (exit code 3).
class InfeasibleError : public Error {
 public:
  using Error::Error;
};

/// The user interrupted (Ctrl-C); the message says what is resumable. Exit code 130.
class Interrupted : public Error {
 public:
  using Error::Error;
};

template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
[[noreturn]] void fail_input(fmt::format_string<Args...> format, Args&&... args) {
  throw InputError(fmt::format(format, std::forward<Args>(args)...));
}

namespace internal {
[[noreturn]] void assertion_failed(const char* condition, const char* file, int line);
}  // namespace internal

}  // namespace gantry::base

#define GANTRY_CHECK(condition, ...)           \
  do {                                         \
    if (!(condition)) [[unlikely]] {           \
      ::gantry::base::fail_input(__VA_ARGS__); \
    }                                          \
  } while (false)

#ifdef NDEBUG
#define GANTRY_ASSERT(condition) ((void)0)
#else
#define GANTRY_ASSERT(condition) \
  ((condition) ? (void)0 : ::gantry::base::internal::assertion_failed(#condition, __FILE__, __LINE__))
#endif

#define GANTRY_UNREACHABLE() ::gantry::base::internal::assertion_failed("unreachable", __FILE__, __LINE__)
