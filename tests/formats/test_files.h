#pragma once
// What the tests of this module share: little-endian images, and what all tests share.
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/test_support.h"

namespace gantry::formats::testing {

using tests::input_error;
using tests::read_raw;
using tests::TemporaryFolder;
using tests::write_raw;

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

/// The value's bytes, for building file images.
template <class T>
std::string raw(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

}  // namespace gantry::formats::testing
