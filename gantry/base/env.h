#pragma once
// Environment variables, all named GANTRY_* and listed in docs/environment.md.
#include <filesystem>
#include <optional>
#include <string>

namespace gantry::base {

/// The value of an environment variable, or nothing when it is unset or empty.
std::optional<std::string> env(const char* name);

/// An integer variable; throws InputError naming the variable when it is set to something else.
std::optional<long> env_int(const char* name);

/// Folder of optional test data (`GANTRY_DATA`, else ../shared/data beside the source tree), if it exists.
std::optional<std::filesystem::path> data_dir(const std::filesystem::path& source_dir);

}  // namespace gantry::base
