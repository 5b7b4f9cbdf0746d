// The strict reader of plan files; plan_file.cpp writes them.
#include <algorithm>
#include <span>
#include <utility>

#include "gantry/base/check.h"
#include "gantry/plan/plan_file.h"

namespace gantry::plan {
namespace {

using base::Json;

constexpr std::int64_t kMaxTokens = 1'000'000'000;
constexpr std::int64_t kMaxSequences = 1'000'000'000;
constexpr int kMaxCount = 1'000'000;
constexpr std::uint64_t kMaxFileBytes = std::uint64_t{64} << 20;

// Fields of one object, each read with its range; done() refuses the ones that nobody asked for.
class Reader {
 public:
  Reader(const Json& object, std::string source) : object_(object), source_(std::move(source)) {
    GANTRY_CHECK(object.is_object(), "{}: expected an object, found {}", source_, object.type_name());
  }

  template <class T>
  T number(std::string_view key, T least, T most) {
    known_.push_back(key);
    const T value = base::json_get<T>(object_, key, source_);
    GANTRY_CHECK(value >= least && value <= most, "{}: '{}' must be {} to {}, found {}", source_, key, least, most,
                 value);
    return value;
  }

  template <class T>
  T number_or(std::string_view key, T fallback, T least, T most) {
    return has(key) ? number<T>(key, least, most) : fallback;
  }

  template <class T>
  T get(std::string_view key) {
    known_.push_back(key);
    return base::json_get<T>(object_, key, source_);
  }

  template <class T>
  T get_or(std::string_view key, T fallback) {
    return has(key) ? get<T>(key) : std::move(fallback);
  }

  template <class T>
  T named(std::string_view key, std::span<const T> all, std::string_view (*name)(T)) {
    const auto text = get<std::string>(key);
    std::string names;
    for (const T value : all) {
      if (name(value) == text) return value;
      names += (names.empty() ? "'" : ", '") + std::string(name(value)) + "'";
    }
    base::fail_input("{}: '{}' must be one of {}, found '{}'", source_, key, names, text);
  }

  // Whether the field is there and not null; either way it is one of the known fields.
  bool has(std::string_view key) {
    known_.push_back(key);
    const auto found = object_.find(key);
    return found != object_.end() && !found->is_null();
  }

  Reader child(std::string_view key) {
    known_.push_back(key);
    const auto found = object_.find(key);
    GANTRY_CHECK(found != object_.end(), "{}: '{}' is missing", source_, key);
    return {*found, join(key)};
  }

  const Json& list(std::string_view key) {
    known_.push_back(key);
    const auto found = object_.find(key);
    GANTRY_CHECK(found != object_.end(), "{}: '{}' is missing", source_, key);
    GANTRY_CHECK(found->is_array(), "{}: '{}' must be a list, found {}", source_, key, found->type_name());
    return *found;
  }

  void done() const {
    for (const auto& [key, value] : object_.items()) {
      if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
      std::vector<std::string_view> names(known_);
      std::sort(names.begin(), names.end());
      names.erase(std::unique(names.begin(), names.end()), names.end());
      base::fail_input("{}: unknown field '{}'; the fields are {}", source_, key, fmt::join(names, ", "));
    }
  }

  const Json& object() const { return object_; }
  const std::string& source() const { return source_; }
  std::string join(std::string_view key) const { return fmt::format("{}: {}", source_, key); }

 private:
  const Json& object_;
  std::string source_;
  std::vector<std::string_view> known_;
};

constexpr double kHuge = 1e300;

StagePrediction read_stage_prediction(Reader reader) {
  StagePrediction predicted;
  predicted.t_s = reader.number("t_s", 0.0, kHuge);
  predicted.d_s = reader.number("d_s", -kHuge, kHuge);  // overlap may make the first micro-batch the cheaper one
  predicted.memory_forward_bytes = reader.number("memory_forward_bytes", 0.0, kHuge);
  predicted.memory_backward_bytes = reader.number("memory_backward_bytes", 0.0, kHuge);
  predicted.host_bytes = reader.number_or("host_bytes", 0.0, 0.0, kHuge);
  reader.done();
  return predicted;
}

void read_mesh(Reader reader, Stage& stage) {
  stage.mesh.nodes = reader.number("nodes", 1, kMaxDevices);
  stage.mesh.per_node = reader.number("per_node", 1, kMaxDevices);
  GANTRY_CHECK(std::int64_t{stage.mesh.nodes} * stage.mesh.per_node <= kMaxDevices,
               "{}: {} nodes of {} devices are more than {} devices", reader.source(), stage.mesh.nodes,
               stage.mesh.per_node, kMaxDevices);
  stage.ranks = reader.get_or("ranks", std::vector<int>{});
  for (const int rank : stage.ranks) {
    GANTRY_CHECK(rank >= 0 && rank < kMaxDevices, "{}: 'ranks' must be 0 to {}, found {}", reader.source(),
                 kMaxDevices - 1, rank);
  }
  reader.done();
}

void read_layers(Reader& reader, Stage& stage) {
  const auto range = reader.get<std::vector<int>>("layers");
  GANTRY_CHECK(range.size() == 2, "{}: 'layers' must be [first, end), two numbers, found {}", reader.source(),
               range.size());
  GANTRY_CHECK(range[0] >= 0 && range[0] < range[1] && range[1] <= kMaxLayers,
               "{}: 'layers' must be [first, end) with 0 <= first < end <= {}, found [{}, {}]", reader.source(),
               kMaxLayers, range[0], range[1]);
  stage.first_layer = range[0];
  stage.layers = range[1] - range[0];
}

void read_offload(Reader reader, cost::Policy& policy) {
  policy.weight_offload = reader.number_or("weights", 0.0, 0.0, 1.0);
  policy.gradient_offload = reader.number_or("gradients", 0.0, 0.0, 1.0);
  policy.optimizer_offload = reader.number_or("optimizer", 0.0, 0.0, 1.0);
  policy.activation_offload = reader.number_or("activations", 0.0, 0.0, 1.0);
  reader.done();
}

constexpr cost::LayerMode kModes[] = {cost::LayerMode::kStore, cost::LayerMode::kInPlace, cost::LayerMode::kRecompute,
                                      cost::LayerMode::kRerunMlp, cost::LayerMode::kRerun};
static_assert(std::size(kModes) == cost::kLayerModes);

Stage read_stage(Reader reader) {
  Stage stage;
  read_layers(reader, stage);
  read_mesh(reader.child("mesh"), stage);
  cost::Policy& policy = stage.policy;
  policy.micro_batch = reader.number("micro_batch", 1, kMaxCount);
  policy.data_parallel = reader.number("data_parallel", 1, kMaxDevices);
  policy.tensor_parallel = reader.number("tensor_parallel", 1, kMaxDevices);
  policy.sequence_parallel = reader.get_or("sequence_parallel", false);
  policy.zero = reader.number("zero", 0, 3);
  stage.checkpointed = reader.number("checkpointed", 0, kMaxLayers);
  if (reader.has("offload")) read_offload(reader.child("offload"), policy);
  if (reader.has("layer_mode")) {
    policy.mode = reader.named<cost::LayerMode>("layer_mode", kModes, cost::layer_mode_name);
  }
  if (reader.has("predicted")) stage.predicted = read_stage_prediction(reader.child("predicted"));
  reader.done();
  return stage;
}

std::vector<Stage> read_stages(const Json& list, const std::string& source) {
  GANTRY_CHECK(!list.empty(), "{}: 'stages' is empty; a plan has at least one stage", source);
  std::vector<Stage> stages;
  std::int64_t layers = 0;
  std::int64_t devices = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    stages.push_back(read_stage({list[i], fmt::format("{}: stages[{}]", source, i)}));
    layers += stages.back().layers;
    devices += stages.back().mesh.devices();
    GANTRY_CHECK(layers <= kMaxLayers && devices <= kMaxDevices,
                 "{}: stages up to [{}] hold {} layers and {} devices, more than {} layers or {} devices", source, i,
                 layers, devices, kMaxLayers, kMaxDevices);
  }
  return stages;
}

void read_predictions(Reader& reader, TrainPlan& plan) {
  if (reader.has("predicted")) {
    Reader predicted = reader.child("predicted");
    plan.predicted.emplace();
    plan.predicted->iteration_s = predicted.number("iteration_s", 0.0, kHuge);
    plan.predicted->tokens_per_s = predicted.number("tokens_per_s", 0.0, kHuge);
    predicted.done();
  }
  if (reader.has("runner_up")) {
    Reader runner_up = reader.child("runner_up");
    plan.runner_up.emplace();
    plan.runner_up->iteration_s = runner_up.number("iteration_s", 0.0, kHuge);
    plan.runner_up->difference = runner_up.get<std::string>("difference");
    runner_up.done();
  }
  if (reader.has("provenance")) {
    Reader provenance = reader.child("provenance");
    for (const auto& [key, value] : provenance.object().items()) {
      plan.provenance[key] = provenance.number<std::int64_t>(key, 0, kMaxSequences);
    }
  }
}

void read_globals(Reader& reader, TrainPlan& plan) {
  Reader model = reader.child("model");
  plan.model = model.get<std::string>("name");
  plan.model_hash = model.get_or<std::string>("hash", "");
  model.done();
  plan.cluster = reader.get_or<std::string>("cluster", "");
  if (reader.has("profile")) {
    Reader profile = reader.child("profile");
    plan.profile = profile.get<std::string>("name");
    plan.profile_hash = profile.get_or<std::string>("hash", "");
    profile.done();
  }
  plan.dtype = reader.get_or<std::string>("dtype", plan.dtype);
  plan.flash_attention = reader.get_or("flash_attention", plan.flash_attention);
  plan.chunked_loss = reader.get_or("chunked_loss", plan.chunked_loss);
  plan.sequence = reader.number<std::int64_t>("sequence_tokens", 1, kMaxTokens);
  plan.global_batch = reader.number<std::int64_t>("global_batch", 1, kMaxSequences);
  plan.accumulation = reader.number("accumulation", 1, static_cast<int>(kMaxSequences));
  if (reader.has("schedule")) plan.schedule = reader.named<Schedule>("schedule", kAllSchedules, schedule_name);
  plan.chunks = reader.number_or("chunks", 1, 1, kMaxLayers);
}

}  // namespace

TrainPlan plan_from_json(const base::Json& json, std::string_view source) {
  Reader reader(json, std::string(source));
  TrainPlan plan;
  plan.schema = reader.get<int>("schema");
  GANTRY_CHECK(plan.schema == kPlanSchema, "{}: 'schema' is {}, this version of gantry reads {}; plan again with it",
               source, plan.schema, kPlanSchema);
  read_globals(reader, plan);
  plan.stages = read_stages(reader.list("stages"), reader.source());
  read_predictions(reader, plan);
  reader.done();
  return plan;
}

TrainPlan read_plan(const std::filesystem::path& path) {
  return plan_from_json(base::read_json_file(path, kMaxFileBytes), path.string());
}

}  // namespace gantry::plan
