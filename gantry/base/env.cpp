#include "gantry/base/env.h"

#include <charconv>
#include <cstdlib>

#include "gantry/base/check.h"

namespace gantry::base {

std::optional<std::string> env(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return std::string(value);
}

std::optional<long> env_int(const char* name) {
  const auto value = env(name);
  if (!value) return std::nullopt;
  long parsed = 0;
  const auto [end, error] = std::from_chars(value->data(), value->data() + value->size(), parsed);
  GANTRY_CHECK(error == std::errc() && end == value->data() + value->size(),
               "environment variable {}: expected an integer, got '{}'", name, *value);
  return parsed;
}

std::optional<std::filesystem::path> data_dir(const std::filesystem::path& source_dir) {
  const auto named = env("GANTRY_DATA");
  const std::filesystem::path path = named ? std::filesystem::path(*named) : source_dir / ".." / "shared" / "data";
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored)) return std::nullopt;
  return path;
}

}  // namespace gantry::base
