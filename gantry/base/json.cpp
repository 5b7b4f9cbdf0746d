#include "gantry/base/json.h"

#include "gantry/base/file.h"

namespace gantry::base {

Json parse_json(std::string_view text, std::string_view source) {
  constexpr int kMaxDepth = 256;
  bool too_deep = false;
  const Json::parser_callback_t callback = [&](int depth, Json::parse_event_t event, Json&) {
    const bool opens = event == Json::parse_event_t::array_start || event == Json::parse_event_t::object_start;
    if (opens && depth >= kMaxDepth) {
      too_deep = true;
      throw std::length_error("depth");
    }
    return true;
  };
  try {
    return Json::parse(text, callback);
  } catch (const nlohmann::json::exception& error) {
    std::string what = error.what();
    if (const auto bracket = what.find("] "); bracket != std::string::npos) what = what.substr(bracket + 2);
    fail_input("{}: not valid JSON: {}", source, what);
  } catch (const std::length_error&) {
    if (!too_deep) throw;
    fail_input("{}: JSON nested deeper than {} levels", source, kMaxDepth);
  }
}

Json read_json_file(const std::filesystem::path& path, std::uint64_t max_bytes) {
  return parse_json(read_text_file(path, max_bytes), path.string());
}

}  // namespace gantry::base
