// gantry report RUN...: one HTML page of plots.
#include <cstdio>

#include "gantry/cli/report/report_page.h"
#include "gantry/cli/verbs.h"

namespace gantry::cli {
namespace {

struct ReportOptions {
  std::string out = "report.html";

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit("out", out, "HTML file to write");
  }
};

}  // namespace

void add_report(Command& program) {
  Command& verb = program.add_verb("report", "An HTML page of plots from the records of training runs");
  struct State {
    std::vector<std::string> runs;
    ReportOptions options;
  };
  auto state = std::make_shared<State>();
  verb.positional("RUN", state->runs, "folders of `gantry train --out`, or metrics.jsonl files");
  verb.options(state->options);
  verb.on_run([state] {
    report::write_report({state->runs.begin(), state->runs.end()}, state->options.out);
    std::printf("%s\n", state->options.out.c_str());
    return 0;
  });
}

}  // namespace gantry::cli
