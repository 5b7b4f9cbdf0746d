#pragma once
// `gantry report`: one HTML page of plots from what training runs recorded.
#include <filesystem>
#include <vector>

namespace gantry::cli::report {

/// Reads the runs (folders that `gantry train --out` wrote, or metrics.jsonl files) and writes one self-contained HTML
/// page: summary, plots, evaluations, options; several runs are overlaid. The file is replaced as a whole or not at
/// all. Throws InputError for runs that cannot be read (see records.h) and Error when the page cannot be written.
void write_report(const std::vector<std::filesystem::path>& runs, const std::filesystem::path& out_html);

}  // namespace gantry::cli::report
