#pragma once
// The page's sections as HTML. Every text that comes from a file is escaped here.
#include <span>
#include <string>

#include "gantry/cli/report/records.h"

namespace gantry::cli::report {

/// What the page calls itself: the run's name, or how many runs it compares.
std::string page_title(std::span<const RunRecords> runs);

/// Model, machine, time and state of a run, from its start record.
std::string facts_html(const RunRecords& run);
/// The numbers that sum up one run, as tiles.
std::string tiles_html(const RunRecords& run);
/// The same numbers of several runs, as a table.
std::string comparison_html(std::span<const RunRecords> runs);
/// Every evaluation, newest last; empty without any.
std::string evals_html(std::span<const RunRecords> runs);
/// The options of one run, or of several with those that differ first; empty without any.
std::string options_html(std::span<const RunRecords> runs);
/// What the reader should know: restarts, losses that are not finite, incomplete lines; empty without any.
std::string notices_html(std::span<const RunRecords> runs);

}  // namespace gantry::cli::report
