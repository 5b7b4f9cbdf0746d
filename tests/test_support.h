#pragma once
// What the tests of several modules share: folders that remove themselves, whole files, and messages of exceptions.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "gantry/base/check.h"

namespace gantry::tests {

/// A fresh folder under the system's temporary folder, removed with everything in it.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "gantry-test-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw base::Error("cannot make a temporary folder");
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
  int entries() const {
    int count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(path_)) ++count;
    return count;
  }

 private:
  std::filesystem::path path_;
};

inline void write_raw(const std::filesystem::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary).write(text.data(), static_cast<std::streamsize>(text.size()));
}

inline std::string read_raw(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// The message of the Exception that `body` throws; fails the test when it throws none or another type.
template <class Exception, class Body>
std::string message_of(const Body& body) {
  try {
    body();
  } catch (const Exception& error) {
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "expected another type of exception, found: " << error.what();
    return error.what();
  }
  ADD_FAILURE() << "expected an exception, nothing was thrown";
  return "";
}

template <class Body>
std::string input_error(const Body& body) {
  return message_of<base::InputError>(body);
}

/// Succeeds when `message` contains `text`.
inline ::testing::AssertionResult mentions(const std::string& message, std::string_view text) {
  if (message.find(text) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "expected '" << text << "' in: " << message;
}

}  // namespace gantry::tests

#define EXPECT_MENTIONS(message, text) EXPECT_TRUE(::gantry::tests::mentions(message, text))
