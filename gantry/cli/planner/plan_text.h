#pragma once
// Plans as people read them on a terminal.
#include <string>
#include <vector>

#include "gantry/plan/explain.h"
#include "gantry/plan/search.h"

namespace gantry::cli::planner {

// Everything fits a terminal of 120 columns, most of it one of 100, unless names given by the user are very long.

/// A paragraph over several lines.
std::string wrapped(const std::string& text);
/// Model and batch; cluster and profile.
std::string headline(const plan::SearchInput& input);
/// How the search went, and where its prices come from: measured, fitted, from a roofline or a data sheet.
std::string search_line(const plan::SearchResult& result, const std::string& space, double seconds, bool simulated);
/// A row a plan, best first.
std::string ranking(const std::vector<plan::TrainPlan>& plans);
/// A row a stage with memory bars.
std::string stage_table(const plan::TrainPlan& plan, const cost::CostModel& model);
/// Terms of time and memory of the slowest and the fullest stage.
std::string explanation(const plan::TrainPlan& plan, const plan::PlanExplanation& why, const cost::CostModel& model);
/// Every operator price behind the slowest stage, with its source.
std::string operator_table(const plan::TrainPlan& plan, const plan::PlanExplanation& why, const cost::CostModel& model);
std::string knob_table(const std::vector<plan::KnobValue>& values, double best_s);
/// The fastest of the plans by the closed form, with its seconds.
plan::TrainPlan by_closed_form(const plan::SearchInput& input, const std::vector<plan::TrainPlan>& plans);
/// What each knob is worth; `best_s` by the closed form.
std::string knob_table(const std::vector<plan::KnobValue>& values, double best_s);
/// Two plans side by side under one model.
std::string comparison(const plan::TrainPlan& a, const plan::PlanExplanation& why_a, const plan::TrainPlan& b,
                       const plan::PlanExplanation& why_b);

}  // namespace gantry::cli::planner
