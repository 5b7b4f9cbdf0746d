#pragma once
// Every verb of the program; one file each.
#include "gantry/cli/command.h"

namespace gantry::cli {

void add_info(Command& program);
void add_convert(Command& program);
void add_tokenize(Command& program);
void add_eval(Command& program);
void add_generate(Command& program);
void add_train(Command& program);
void add_report(Command& program);
void add_bench(Command& program);
/// `bench` of a program without libtorch.
void add_planner_bench(Command& program);
void add_profile(Command& program);
void add_plan(Command& program);
void add_simulate(Command& program);

}  // namespace gantry::cli
