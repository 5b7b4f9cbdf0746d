#pragma once
// Inputs of searches by name.
#include <string_view>

#include "gantry/plan/search.h"
#include "gantry/spec/named_models.h"

namespace gantry::plan::testing {

inline SearchInput search_input(std::string_view model, std::string_view cluster, std::int64_t batch,
                                std::int64_t sequence = 2048) {
  SearchInput input;
  input.model_name = model;
  input.model = spec::named_model(model);
  input.cluster = cost::load_cluster(cluster);
  input.profile = cost::load_profile(input.cluster.profile);
  input.sequence = sequence;
  input.global_batch = batch;
  return input;
}

}  // namespace gantry::plan::testing
