#pragma once
// plan.json (docs/plan.md): written with sizes in named units, read strictly; an unknown field is an error.
#include <filesystem>
#include <string>
#include <string_view>

#include "gantry/base/json.h"
#include "gantry/plan/types.h"

namespace gantry::plan {

/// Error where a prediction is not finite: JSON has no such number.
base::OrderedJson plan_to_json(const TrainPlan& plan);
/// InputError names the field that is missing, unknown, of the wrong type or out of range. What the fields say together
/// is verify()'s matter (verify.h).
TrainPlan plan_from_json(const base::Json& json, std::string_view source);

/// The text of a plan file: two blanks a level, objects and lists of plain values on one line where they fit.
std::string plan_to_text(const TrainPlan& plan);

TrainPlan read_plan(const std::filesystem::path& path);
void write_plan(const TrainPlan& plan, const std::filesystem::path& path);  ///< atomically

}  // namespace gantry::plan
