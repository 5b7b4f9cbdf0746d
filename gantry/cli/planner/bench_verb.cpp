// gantry bench without libtorch: the suites that need none.
#include "gantry/base/check.h"
#include "gantry/cli/planner/bench_plan.h"
#include "gantry/cli/verbs.h"

namespace gantry::cli {
namespace {

// The options that the whole program's `bench` shares among its suites.
struct CommonOptions {
  std::string source = ".";
  std::vector<std::string> row;
  std::int64_t rounds = 5;
  bool json = false;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit("source", source, "source tree; ../shared/data is looked for beside it");
    visit("row", row, "only these rows (may be given several times)");
    visit("rounds", rounds, "rounds of each measurement; the median counts");
    visit("json", json, "print one JSON object a row");
  }
};

}  // namespace

void add_planner_bench(Command& program) {
  Command& verb = program.add_verb("bench", "The project's own benchmarks (built without libtorch: suite plan only)");
  struct State {
    std::string suite;
    CommonOptions common;
    planner::PlanBenchOptions options;
  };
  auto state = std::make_shared<State>();
  verb.positional("SUITE", state->suite, "plan");
  verb.options(state->common);
  verb.options(state->options);
  verb.on_run([state] {
    GANTRY_CHECK(state->suite == "plan", "there is no benchmark suite '{}' without libtorch; there is: plan",
                 state->suite);
    state->options.source = state->common.source;
    state->options.row = state->common.row;
    state->options.rounds = state->common.rounds;
    state->options.json = state->common.json;
    planner::bench_plan(state->options);
    return 0;
  });
}

}  // namespace gantry::cli
