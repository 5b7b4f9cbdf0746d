#pragma once
// Plans as people read them on a terminal.
#include <string>
#include <vector>

#include "gantry/plan/explain.h"
#include "gantry/plan/search.h"

namespace gantry::cli::planner {

/// One line about model, cluster and profile.
std::string headline(const plan::SearchInput& input);
/// How many prices were measured, fitted, from a roofline or a data sheet.
std::string provenance_line(const cost::ProvenanceCount& provenance);
/// A row a plan, best first.
std::string ranking(const std::vector<plan::TrainPlan>& plans);
/// A row a stage with memory bars.
std::string stage_table(const plan::TrainPlan& plan, const cost::CostModel& model);
/// Terms of time and memory of the slowest and the fullest stage.
std::string explanation(const plan::TrainPlan& plan, const plan::PlanExplanation& why, const cost::CostModel& model);
/// Every operator price behind the slowest stage, with its source.
std::string operator_table(const plan::TrainPlan& plan, const plan::PlanExplanation& why, const cost::CostModel& model);
std::string knob_table(const std::vector<plan::KnobValue>& values, double best_s);
/// Two plans side by side under one model.
std::string comparison(const plan::TrainPlan& a, const plan::PlanExplanation& why_a, const plan::TrainPlan& b,
                       const plan::PlanExplanation& why_b);

}  // namespace gantry::cli::planner
