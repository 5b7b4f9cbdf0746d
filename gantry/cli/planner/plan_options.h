#pragma once
// What `gantry plan` can be asked for, beside the target (inputs.h).
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace gantry::cli::planner {

struct PlanOptions {
  std::string space = "full";
  std::int64_t best = 3;
  bool simulate = true;
  bool explain = false;
  bool operators = false;
  std::optional<std::string> why_not;
  std::optional<std::string> evaluate;
  std::vector<std::string> compare;
  std::optional<std::string> from_megatron;
  std::optional<std::string> export_as;
  std::optional<std::string> output;
  bool json = false;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit.group("Search");
    visit("space", space, "knobs to search: megatron, deepspeed, aceso, mist or full");
    visit("best", best, "plans to rank");
    visit("simulate", simulate, "rank and price plans by simulation instead of the closed form");
    visit.group("Questions");
    visit("explain", explain, "what binds the plan, what its time and memory are made of, what each knob is worth");
    visit("operators", operators, "the operator prices behind the slowest stage, and where each comes from");
    visit("why_not", why_not, "why another choice loses: tp=8,zero=3,stages=4,checkpoint=none,...");
    visit("evaluate", evaluate, "price this plan file instead of searching");
    visit("compare", compare, "two plan files, priced side by side");
    visit("from_megatron", from_megatron, "price the plan of these Megatron-LM flags instead of searching");
    visit.group("Output");
    visit("export", export_as,
          "print the plan for a launcher: megatron, torchtitan, deepspeed or json; the report goes to stderr");
    visit("output", output, "plan file to write");
    visit("json", json, "print one JSON object");
  }
};

/// InputError for mistakes that would otherwise come to light after the search.
void check_options(const PlanOptions& options);

}  // namespace gantry::cli::planner
