// Plan files as text; plan_read.cpp reads them.
#include "gantry/plan/plan_file.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "gantry/base/check.h"
#include "gantry/base/file.h"

namespace gantry::plan {
namespace {

using base::OrderedJson;

double finite(double value, std::string_view name) {
  if (!std::isfinite(value)) base::fail("plan: predicted {} is {}, which no plan file can hold", name, value);
  return value;
}

OrderedJson stage_prediction_to_json(const StagePrediction& predicted) {
  return {{"t_s", finite(predicted.t_s, "t_s")},
          {"d_s", finite(predicted.d_s, "d_s")},
          {"memory_forward_bytes", finite(predicted.memory_forward_bytes, "memory_forward_bytes")},
          {"memory_backward_bytes", finite(predicted.memory_backward_bytes, "memory_backward_bytes")},
          {"host_bytes", finite(predicted.host_bytes, "host_bytes")}};
}

OrderedJson stage_to_json(const Stage& stage) {
  const cost::Policy& policy = stage.policy;
  OrderedJson json;
  json["layers"] = {stage.first_layer, stage.first_layer + stage.layers};
  json["mesh"] = {{"nodes", stage.mesh.nodes}, {"per_node", stage.mesh.per_node}, {"ranks", stage.ranks}};
  json["micro_batch"] = policy.micro_batch;
  json["data_parallel"] = policy.data_parallel;
  json["tensor_parallel"] = policy.tensor_parallel;
  json["sequence_parallel"] = policy.sequence_parallel;
  json["zero"] = policy.zero;
  json["checkpointed"] = stage.checkpointed;
  json["offload"] = {{"weights", policy.weight_offload},
                     {"gradients", policy.gradient_offload},
                     {"optimizer", policy.optimizer_offload},
                     {"activations", policy.activation_offload}};
  json["layer_mode"] = cost::layer_mode_name(policy.mode);
  if (stage.predicted) json["predicted"] = stage_prediction_to_json(*stage.predicted);
  return json;
}

// Of plain values, or lists of them.
bool is_plain(const OrderedJson& json) {
  if (!json.is_structured()) return true;
  return std::all_of(json.begin(), json.end(), [](const OrderedJson& item) {
    return !item.is_object() &&
           (!item.is_array() ||
            std::all_of(item.begin(), item.end(), [](const OrderedJson& inner) { return inner.is_primitive(); }));
  });
}

std::string one_line(const OrderedJson& json) {
  if (!json.is_structured()) return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  std::vector<std::string> parts;
  for (const auto& [key, value] : json.items()) {
    parts.push_back(json.is_object() ? OrderedJson(key).dump() + ": " + one_line(value) : one_line(value));
  }
  return fmt::format(fmt::runtime(json.is_object() ? "{{{}}}" : "[{}]"), fmt::join(parts, ", "));
}

void write_readably(const OrderedJson& json, std::size_t indent, std::string& text) {
  constexpr std::size_t kWidth = 100;
  if (is_plain(json)) {
    const std::string line = one_line(json);
    if (json.is_array() || !json.is_structured() || indent + line.size() <= kWidth) {
      text += line;
      return;
    }
  }
  text += json.is_object() ? "{\n" : "[\n";
  bool first = true;
  for (const auto& [key, value] : json.items()) {
    if (!std::exchange(first, false)) text += ",\n";
    text.append(indent + 2, ' ');
    if (json.is_object()) text += OrderedJson(key).dump() + ": ";
    write_readably(value, indent + 2, text);
  }
  text += '\n';
  text.append(indent, ' ');
  text += json.is_object() ? '}' : ']';
}

}  // namespace

base::OrderedJson plan_to_json(const TrainPlan& plan) {
  OrderedJson json;
  json["schema"] = plan.schema;
  json["model"] = {{"name", plan.model}, {"hash", plan.model_hash}};
  json["cluster"] = plan.cluster;
  json["profile"] = {{"name", plan.profile}, {"hash", plan.profile_hash}};
  json["dtype"] = plan.dtype;
  json["flash_attention"] = plan.flash_attention;
  json["chunked_loss"] = plan.chunked_loss;
  json["sequence_tokens"] = plan.sequence;
  json["global_batch"] = plan.global_batch;
  json["accumulation"] = plan.accumulation;
  json["schedule"] = schedule_name(plan.schedule);
  json["chunks"] = plan.chunks;
  json["stages"] = OrderedJson::array();
  for (const Stage& stage : plan.stages) json["stages"].push_back(stage_to_json(stage));
  if (plan.predicted) {
    json["predicted"] = {{"iteration_s", finite(plan.predicted->iteration_s, "iteration_s")},
                         {"tokens_per_s", finite(plan.predicted->tokens_per_s, "tokens_per_s")}};
  }
  if (plan.runner_up) {
    json["runner_up"] = {{"iteration_s", finite(plan.runner_up->iteration_s, "iteration_s of the runner-up")},
                         {"difference", plan.runner_up->difference}};
  }
  if (!plan.provenance.empty()) json["provenance"] = plan.provenance;
  return json;
}

std::string plan_to_text(const TrainPlan& plan) {
  std::string text;
  write_readably(plan_to_json(plan), 0, text);
  return text + "\n";
}

void write_plan(const TrainPlan& plan, const std::filesystem::path& path) {
  base::write_file_atomically(path, plan_to_text(plan));
}

}  // namespace gantry::plan
