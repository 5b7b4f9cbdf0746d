#include "gantry/base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include "gantry/base/check.h"
#include "gantry/base/env.h"

namespace gantry::base {
namespace {

spdlog::level::level_enum parse_level(const std::string& name) {
  const auto level = spdlog::level::from_str(name);
  GANTRY_CHECK(level != spdlog::level::off || name == "off",
               "log level: expected trace, debug, info, warn, error or off, got '{}'", name);
  return level;
}

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto made = std::make_shared<spdlog::logger>("gantry", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made->set_pattern("%^%L%$ %H:%M:%S %v");
    if (const auto level = env("GANTRY_LOG")) made->set_level(parse_level(*level));
    return made;
  }();
  return *instance;
}

}  // namespace

void log_message(LogLevel level, const std::string& message) {
  static constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info,
                                                          spdlog::level::warn, spdlog::level::err};
  logger().log(kLevels[static_cast<int>(level)], message);
}

void set_log_level(const std::string& name) { logger().set_level(parse_level(name)); }

}  // namespace gantry::base
