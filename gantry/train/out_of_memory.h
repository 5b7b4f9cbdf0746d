#pragma once
// Running out of memory as a return value, for what tries sizes.
#include <c10/util/Exception.h>

#include <new>
#include <optional>

namespace gantry::train {

/// What `body` returns; nothing when the allocator of tensors or of the language had no memory. Other exceptions pass.
template <class Body>
auto unless_out_of_memory(const Body& body) -> std::optional<decltype(body())> {
  try {
    return body();
  } catch (const std::bad_alloc&) {
  } catch (const c10::OutOfMemoryError&) {
  } catch (const c10::Error& error) {
    // libtorch's CPU allocator has no type of its own for it.
    if (error.msg().find("can't allocate memory") == std::string::npos) throw;
  }
  return std::nullopt;
}

}  // namespace gantry::train
