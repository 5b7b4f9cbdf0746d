#pragma once
// The files of web/, embedded by cmake/EmbedFiles.cmake.
#include <string_view>

namespace gantry::cli::report::web {

extern const std::string_view kReportHtml;
extern const std::string_view kReportCss;
extern const std::string_view kReportJs;

}  // namespace gantry::cli::report::web
