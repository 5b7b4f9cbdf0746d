#pragma once
// What the tests of this module share: a folder that removes itself, little-endian images, and message checks.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/base/check.h"

namespace gantry::formats::testing {

/// A fresh folder under the system's temporary folder.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "gantry-formats-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw base::Error("mkdtemp failed");
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

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

inline void write_raw(const std::filesystem::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary).write(text.data(), static_cast<std::streamsize>(text.size()));
}

inline std::string read_raw(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// The message of the InputError that `body` throws; fails the test when it throws none or another type.
template <class Body>
std::string input_error(const Body& body) {
  try {
    body();
  } catch (const base::InputError& error) {
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "expected an InputError, found: " << error.what();
    return error.what();
  }
  ADD_FAILURE() << "expected an InputError, nothing was thrown";
  return "";
}

/// Succeeds when `message` contains `text`.
inline ::testing::AssertionResult mentions(const std::string& message, std::string_view text) {
  if (message.find(text) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "expected '" << text << "' in: " << message;
}

}  // namespace gantry::formats::testing

#define EXPECT_MENTIONS(message, text) EXPECT_TRUE(::gantry::formats::testing::mentions(message, text))
