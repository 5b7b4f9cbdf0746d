#pragma once
// plan.json (docs/plan.md): written with sizes in named units, read strictly; an unknown field is an error.
#include <filesystem>
#include <string_view>

#include "gantry/base/json.h"
#include "gantry/plan/types.h"

namespace gantry::plan {

base::OrderedJson plan_to_json(const TrainPlan& plan);
/// InputError names the field that is missing, unknown, of the wrong type or out of range.
TrainPlan plan_from_json(const base::Json& json, std::string_view source);
TrainPlan read_plan(const std::filesystem::path& path);
void write_plan(const TrainPlan& plan, const std::filesystem::path& path);  ///< atomically

}  // namespace gantry::plan
