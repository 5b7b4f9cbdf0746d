// The small language of --why-not: "tp=8,zero=3".
#include <algorithm>
#include <charconv>

#include "gantry/base/check.h"
#include "gantry/plan/explain.h"

namespace gantry::plan {
namespace {

int parse_int(std::string_view key, std::string_view text, int least) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  GANTRY_CHECK(error == std::errc() && end == text.data() + text.size() && value >= least,
               "restriction {}={}: expected a whole number of at least {}", key, text, least);
  return value;
}

template <class T>
void choose(std::vector<T>& list, std::string_view key, std::string_view text,
            const std::vector<std::pair<std::string_view, T>>& names) {
  std::string known;
  for (const auto& [name, value] : names) {
    if (name == text) {
      list = {value};
      return;
    }
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  base::fail_input("restriction {}={}: expected one of {}", key, text, known);
}

void restrict_one(SearchSpace& space, std::string_view key, std::string_view text) {
  if (key == "tp") {
    space.tensor_parallel = {parse_int(key, text, 1)};
  } else if (key == "stages" || key == "pp") {
    space.stages = parse_int(key, text, 1);
    space.max_stages = std::max(space.max_stages, space.stages);
  } else if (key == "accumulation") {
    space.accumulation = parse_int(key, text, 1);
  } else if (key == "micro_batch") {
    space.micro_batch = parse_int(key, text, 1);
    space.max_micro_batch = std::max(space.max_micro_batch, space.micro_batch);
  } else if (key == "zero") {
    const int zero = parse_int(key, text, 0);
    GANTRY_CHECK(zero <= 3, "restriction zero={}: expected 0 to 3", zero);
    space.zero = {zero};
  } else if (key == "checkpoint") {
    std::vector<Checkpointing> choice;
    choose<Checkpointing>(
        choice, key, text,
        {{"all", Checkpointing::kAll}, {"none", Checkpointing::kNone}, {"tuned", Checkpointing::kTuned}});
    space.checkpointing = choice.front();
  } else if (key == "schedule") {
    choose<Schedule>(space.schedules, key, text,
                     {{"1f1b", Schedule::kOneFOneB},
                      {"interleaved", Schedule::kInterleaved},
                      {"zero_bubble", Schedule::kZeroBubble}});
  } else if (key == "mode") {
    choose<cost::LayerMode>(space.modes, key, text,
                            {{"store", cost::LayerMode::kStore},
                             {"in_place", cost::LayerMode::kInPlace},
                             {"recompute", cost::LayerMode::kRecompute},
                             {"rerun_mlp", cost::LayerMode::kRerunMlp},
                             {"rerun", cost::LayerMode::kRerun}});
  } else if (key == "sequence_parallel") {
    std::vector<bool> choice;
    choose<bool>(choice, key, text, {{"on", true}, {"off", false}});
    space.sequence_parallel = choice;
  } else if (key == "offload") {
    GANTRY_CHECK(text == "none", "restriction offload={}: expected none", text);
    space.weights = space.gradients = space.optimizer = space.activations = {0};
  } else {
    base::fail_input(
        "restriction '{}' is not one of tp, stages, accumulation, micro_batch, zero, checkpoint, schedule, mode, "
        "sequence_parallel, offload",
        key);
  }
}

}  // namespace

SearchSpace restrict_space(SearchSpace space, std::string_view restrictions) {
  for (SearchSpace& other : space.also) other = restrict_space(std::move(other), restrictions);
  while (!restrictions.empty()) {
    const std::string_view item = restrictions.substr(0, restrictions.find(','));
    const std::size_t equals = item.find('=');
    GANTRY_CHECK(equals != std::string_view::npos && equals > 0, "restriction '{}': expected key=value", item);
    restrict_one(space, item.substr(0, equals), item.substr(equals + 1));
    restrictions.remove_prefix(std::min(item.size() + 1, restrictions.size()));
  }
  return space;
}

}  // namespace gantry::plan
