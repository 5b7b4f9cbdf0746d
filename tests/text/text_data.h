#pragma once
#include <unistd.h>

// Test data of this module.
#include <filesystem>
#include <string>
#include <vector>

#include "gantry/base/json.h"

namespace gantry::text {

inline std::filesystem::path text_data() {
  return std::filesystem::path(GANTRY_SOURCE_DIR) / "tests" / "data" / "text";
}

/// The strings that every golden file of tools/make_tokenizer_goldens.py is about.
inline std::vector<std::string> golden_texts() {
  return base::read_json_file(text_data() / "texts.json").get<std::vector<std::string>>();
}

/// A fresh folder for one test.
inline std::filesystem::path fresh_folder(const std::string& name) {
  const auto folder =
      std::filesystem::path(GANTRY_BINARY_DIR) / "text_test" / (name + ("." + std::to_string(::getpid())));
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

/// The message of the exception that `call` throws, "" when it throws none.
template <class Exception = base::InputError, class Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const Exception& error) {
    return error.what();
  }
  return "";
}

}  // namespace gantry::text
