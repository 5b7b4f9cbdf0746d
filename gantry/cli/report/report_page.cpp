#include "gantry/cli/report/report_page.h"

#include "gantry/base/file.h"
#include "gantry/cli/report/page.h"
#include "gantry/cli/report/records.h"

namespace gantry::cli::report {

void write_report(const std::vector<std::filesystem::path>& runs, const std::filesystem::path& out_html) {
  const auto records = read_runs(runs);
  if (out_html.has_parent_path()) base::make_directories(out_html.parent_path());
  base::write_file_atomically(out_html, page_html(records));
}

}  // namespace gantry::cli::report
