#include "gantry/base/interrupt.h"
#include "gantry/base/process.h"
#include "gantry/cli/verbs.h"

int main(int argc, char** argv) {
  gantry::base::keep_freed_memory();
  gantry::base::install_interrupt_handler();
  gantry::cli::Command program("gantry", "Plans, trains, quantises and serves neural networks.");
#ifdef GANTRY_WITH_TORCH
  gantry::cli::add_info(program);
  gantry::cli::add_convert(program);
  gantry::cli::add_tokenize(program);
  gantry::cli::add_eval(program);
  gantry::cli::add_generate(program);
#endif
  gantry::cli::add_plan(program);
  gantry::cli::add_simulate(program);
#ifdef GANTRY_WITH_TORCH
  gantry::cli::add_profile(program);
  gantry::cli::add_train(program);
  gantry::cli::add_report(program);
  gantry::cli::add_bench(program);
#else
  gantry::cli::add_planner_bench(program);
#endif
  return program.run(argc, argv);
}
