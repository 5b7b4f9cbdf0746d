#include "gantry/cli/planner/inputs.h"

#include <filesystem>

#include "gantry/base/check.h"
#include "gantry/formats/gguf.h"
#include "gantry/plan/verify.h"
#include "gantry/spec/named_models.h"

namespace gantry::cli::planner {
namespace {

spec::ModelConfig model_config(const std::string& model) {
  GANTRY_CHECK(!model.empty(),
               "--model is missing: a name such as gpt-1.3b, a model folder, config.json or .gguf file");
  const std::filesystem::path path(model);
  if (!std::filesystem::exists(path)) return spec::named_model(model);
  if (path.extension() == ".gguf") return spec::config_from_gguf(formats::GgufFile::open(path));
  return spec::config_from_hf(path);
}

// The 16-bit type is a matter of the device: a profile with measurements names it.
std::string default_dtype(const cost::Profile& profile) {
  for (const cost::OperatorTime& time : profile.operators) {
    if (time.dtype != "fp32") return time.dtype;
  }
  return profile.operators.empty() ? "bf16" : "fp32";
}

}  // namespace

plan::SearchInput search_input(const TargetOptions& options) {
  plan::SearchInput input;
  input.model_name = options.model;
  input.model = model_config(options.model);
  input.cluster = cost::load_cluster(options.cluster.value_or("this"));
  input.profile = cost::load_profile(options.profile.value_or(input.cluster.profile));
  GANTRY_CHECK(options.device_memory >= 0 && options.device_memory < 1e6, "--device-memory {}: expected GiB, 0 or more",
               options.device_memory);
  if (options.device_memory > 0) {
    input.cluster.device_memory_bytes = static_cast<std::uint64_t>(options.device_memory * 1024 * 1024 * 1024);
  }
  input.sequence = options.seq;
  input.global_batch = options.batch;
  input.cost.dtype = options.dtype.empty() ? default_dtype(input.profile) : options.dtype;
  input.cost.flash_attention = options.flash_attention;
  input.cost.chunked_loss = options.chunked_loss;
  input.cost.memory_margin = options.margin;
  return input;
}

plan::SearchInput input_of_plan(const plan::TrainPlan& plan, TargetOptions options) {
  if (options.model.empty()) options.model = plan.model;
  if (!options.cluster) {
    GANTRY_CHECK(!plan.cluster.empty(), "the plan names no cluster; say which with --cluster");
    options.cluster = plan.cluster;
    try {
      cost::load_cluster(plan.cluster);
    } catch (const base::InputError& error) {
      base::fail_input("the plan was made for {}; give the cluster or its file with --cluster ({})", plan.cluster,
                       error.what());
    }
    if (!options.profile && !plan.profile.empty()) options.profile = plan.profile;
  }
  options.batch = plan.global_batch;
  options.seq = plan.sequence;
  return search_input(options);
}

void require_sound(plan::TrainPlan& plan, const plan::SearchInput& input, const std::string& source) {
  try {
    plan::assign_ranks(plan, input.cluster);
    plan::require_sound(plan, input.model, input.cluster);
  } catch (const base::InputError& error) {
    base::fail_input("{}: {}", source, error.what());
  }
}

}  // namespace gantry::cli::planner
