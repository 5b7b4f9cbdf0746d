// gantry bench without libtorch: the suites that need none.
#include "gantry/base/check.h"
#include "gantry/cli/planner/bench_plan.h"
#include "gantry/cli/verbs.h"

namespace gantry::cli {
void add_planner_bench(Command& program) {
  Command& verb = program.add_verb("bench", "The project's own benchmarks (built without libtorch: suite plan only)");
  struct State {
    std::string suite;
    planner::PlanBenchOptions options;
  };
  auto state = std::make_shared<State>();
  verb.positional("SUITE", state->suite, "plan");
  verb.options(static_cast<planner::SuiteOptions&>(state->options));
  verb.options(state->options);
  verb.on_run([state] {
    GANTRY_CHECK(state->suite == "plan", "there is no benchmark suite '{}' without libtorch; there is: plan",
                 state->suite);
    planner::bench_plan(state->options);
    return 0;
  });
}

}  // namespace gantry::cli
