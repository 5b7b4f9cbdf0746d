// Megatron-LM's flags read back as a plan.
#include <algorithm>
#include <utility>

#include "gantry/base/check.h"
#include "gantry/plan/export.h"
#include "gantry/plan/megatron_flags.h"
#include "gantry/plan/verify.h"

namespace gantry::plan {
namespace {

using internal::MegatronFlags;

// Sizes that the caller has given already; a flag may repeat them.
void check_same(const MegatronFlags& flags, std::string_view name, std::int64_t expected, std::string_view of) {
  const auto value = flags.integer(name, 1);
  GANTRY_CHECK(!value || *value == expected, "--{} {} differs from {} of {}; change the flag or the input", name,
               *value, expected, of);
}

void check_sizes(const MegatronFlags& flags, const TrainPlan& plan, const spec::ModelConfig& model) {
  check_same(flags, "num-layers", model.num_layers, "the model");
  check_same(flags, "hidden-size", model.hidden_size, "the model");
  check_same(flags, "ffn-hidden-size", model.intermediate_size, "the model");
  check_same(flags, "num-attention-heads", model.num_heads, "the model");
  check_same(flags, "seq-length", plan.sequence, "the requested sequence");
  check_same(flags, "global-batch-size", plan.global_batch, "the requested batch");
  for (const std::string_view name : {"context-parallel-size", "expert-model-parallel-size"}) {
    const auto value = flags.integer(name, 1);
    GANTRY_CHECK(!value || *value == 1, "--{} {}: plans have no such dimension; only 1 can be priced", name, *value);
  }
}

// Layers of every stage, by the first of layout, first and last stage, even split.
std::vector<int> split_layers(const MegatronFlags& flags, int stages, std::int64_t layers, int* chunks) {
  if (const auto layout = flags.text("pipeline-model-parallel-layout")) {
    return internal::layers_of_layout(*layout, stages, layers, chunks);
  }
  const auto first = flags.integer("decoder-first-pipeline-num-layers", 1);
  const auto last = flags.integer("decoder-last-pipeline-num-layers", 1);
  std::vector<int> split(static_cast<std::size_t>(stages));
  std::int64_t rest = layers;
  int even = stages;
  for (const auto& given : {first, last}) {
    if (!given) continue;
    rest -= *given;
    --even;
  }
  const bool fits = even >= 0 && rest >= even && (even == 0 ? rest == 0 : rest % even == 0);
  if (!first && !last) {
    GANTRY_CHECK(fits,
                 "--pipeline-model-parallel-size {} does not divide {} layers; give --pipeline-model-parallel-layout",
                 stages, layers);
  }
  GANTRY_CHECK(
      fits,
      "--decoder-first-pipeline-num-layers and --decoder-last-pipeline-num-layers leave {} layers for {} stages, "
      "which do not divide",
      rest, even);
  std::ranges::fill(split, even == 0 ? 0 : static_cast<int>(rest / even));
  if (first) split.front() = static_cast<int>(*first);
  if (last) split.back() = static_cast<int>(*last);
  return split;
}

int read_chunks(const MegatronFlags& flags, int stages, std::int64_t layers) {
  const auto chunks = flags.integer("num-virtual-stages-per-pipeline-rank", 1);
  const auto per_chunk = flags.integer("num-layers-per-virtual-pipeline-stage", 1);
  GANTRY_CHECK(!chunks || !per_chunk,
               "--num-layers-per-virtual-pipeline-stage and --num-virtual-stages-per-pipeline-rank exclude each other; "
               "keep one");
  if (chunks) return static_cast<int>(*chunks);
  if (!per_chunk) return 1;
  GANTRY_CHECK(layers % (std::int64_t{stages} * *per_chunk) == 0,
               "--num-layers-per-virtual-pipeline-stage {} does not divide the {} layers of {} stages", *per_chunk,
               layers, stages);
  return static_cast<int>(layers / stages / *per_chunk);
}

int read_zero(const MegatronFlags& flags) {
  if (flags.has("use-torch-fsdp2")) return 3;
  const auto strategy =
      flags.choice("data-parallel-sharding-strategy", {"no_shard", "optim", "optim_grads", "optim_grads_params"});
  if (flags.has("use-megatron-fsdp")) return strategy.value_or(3);
  return flags.has("use-distributed-optimizer") ? 1 : 0;
}

// Layers that are recomputed of a chunk; -1: all.
std::int64_t read_recompute(const MegatronFlags& flags, std::vector<std::string>& ignored) {
  const auto granularity = flags.choice("recompute-granularity", {"selective", "full"});
  const auto method = flags.choice("recompute-method", {"uniform", "block"});
  const auto layers = flags.integer("recompute-num-layers", 1);
  if (flags.has("recompute-activations") || granularity == 0) {
    ignored.emplace_back("selective recomputation (plans checkpoint whole layers)");
  }
  if (granularity != 1) return 0;
  GANTRY_CHECK(method.has_value(), "--recompute-granularity full needs --recompute-method uniform or block");
  GANTRY_CHECK(layers.has_value(), "--recompute-granularity full needs --recompute-num-layers");
  if (*method == 1) return *layers;
  if (*layers > 1) {
    ignored.push_back(
        fmt::format("--recompute-num-layers {} of method uniform (plans checkpoint layers one by one)", *layers));
  }
  return -1;
}

void read_megatron_offload(const MegatronFlags& flags, std::int64_t layers, cost::Policy& policy) {
  const auto fraction = flags.number("optimizer-offload-fraction", 0, 1);
  if (flags.has("optimizer-cpu-offload")) policy.optimizer_offload = fraction.value_or(1);
  const auto offloaded = flags.integer("cpu-offloading-num-layers", 0);
  if (!offloaded || *offloaded == 0) return;
  GANTRY_CHECK(*offloaded < layers, "--cpu-offloading-num-layers {} must be below the {} layers", *offloaded, layers);
  policy.activation_offload = static_cast<double>(*offloaded) / static_cast<double>(layers);
}

void read_precision(const MegatronFlags& flags, TrainPlan& plan) {
  GANTRY_CHECK(!flags.has("bf16") || !flags.has("fp16"), "--bf16 and --fp16 exclude each other; keep one");
  if (flags.has("bf16")) plan.dtype = "bf16";
  if (flags.has("fp16")) plan.dtype = "fp16";
  if (flags.has("use-flash-attn")) plan.flash_attention = true;
  if (const auto backend = flags.choice("attention-backend", {"flash", "fused", "unfused", "local", "auto"})) {
    plan.flash_attention = *backend != 2 && *backend != 3;
  }
  if (flags.has("cross-entropy-loss-fusion")) plan.chunked_loss = true;
}

// Stages take consecutive ranks, as Megatron-LM deals them out.
cost::Mesh mesh_of(int devices, const cost::Cluster& cluster) {
  const int per_node = cluster.devices_per_node;
  if (devices <= per_node && per_node % devices == 0) return {1, devices};
  GANTRY_CHECK(devices % per_node == 0,
               "--pipeline-model-parallel-size: a stage has {} devices, neither an even part of a node of {} nor whole "
               "nodes",
               devices, per_node);
  return {devices / per_node, per_node};
}

struct Degrees {
  int tensor = 1;
  int stages = 1;
  int data = 1;
  int micro_batch = 1;
};

Degrees read_degrees(const MegatronFlags& flags, const spec::ModelConfig& model, const cost::Cluster& cluster) {
  Degrees degrees;
  degrees.tensor = static_cast<int>(flags.integer("tensor-model-parallel-size", 1).value_or(1));
  degrees.stages = static_cast<int>(flags.integer("pipeline-model-parallel-size", 1).value_or(1));
  const auto micro_batch = flags.integer("micro-batch-size", 1);
  GANTRY_CHECK(micro_batch.has_value(), "--micro-batch-size is missing; Megatron-LM has no default for it");
  degrees.micro_batch = static_cast<int>(*micro_batch);
  const std::int64_t devices = std::int64_t{cluster.nodes} * cluster.devices_per_node;
  const std::int64_t group = std::int64_t{degrees.tensor} * degrees.stages;
  GANTRY_CHECK(devices >= group && devices % group == 0,
               "--tensor-model-parallel-size {} times --pipeline-model-parallel-size {} does not divide the {} devices "
               "of {}",
               degrees.tensor, degrees.stages, devices, cluster.name);
  degrees.data = static_cast<int>(devices / group);
  GANTRY_CHECK(degrees.stages <= model.num_layers, "--pipeline-model-parallel-size {} exceeds the {} layers",
               degrees.stages, model.num_layers);
  return degrees;
}

void add_stages(const std::vector<int>& split, const Stage& like, std::int64_t recomputed, TrainPlan& plan) {
  int first_layer = 0;
  int rank = 0;
  plan.stages.clear();
  for (const int layers : split) {
    Stage stage = like;
    stage.first_layer = first_layer;
    stage.layers = layers;
    stage.checkpointed =
        recomputed < 0 ? layers : static_cast<int>(std::min<std::int64_t>(recomputed * plan.chunks, layers));
    for (int i = 0; i < like.mesh.devices(); ++i) stage.ranks.push_back(rank++);
    first_layer += layers;
    plan.stages.push_back(std::move(stage));
  }
}

}  // namespace

TrainPlan plan_from_megatron(std::string_view text, const TrainPlan& base, const spec::ModelConfig& model,
                             const cost::Cluster& cluster, std::vector<std::string>* ignored) {
  GANTRY_CHECK(cluster.nodes >= 1 && cluster.devices_per_node >= 1 && cluster.devices() <= kMaxDevices,
               "cluster '{}' has no devices", cluster.name);
  MegatronFlags flags(text);
  std::vector<std::string> unused = flags.irrelevant();
  TrainPlan plan = base;
  plan.predicted.reset();
  plan.runner_up.reset();
  plan.provenance.clear();
  check_sizes(flags, plan, model);
  const Degrees degrees = read_degrees(flags, model, cluster);
  Stage stage;
  stage.mesh = mesh_of(degrees.data * degrees.tensor, cluster);
  stage.policy.tensor_parallel = degrees.tensor;
  stage.policy.data_parallel = degrees.data;
  stage.policy.micro_batch = degrees.micro_batch;
  stage.policy.sequence_parallel = flags.has("sequence-parallel") && degrees.tensor > 1;
  stage.policy.zero = read_zero(flags);
  read_megatron_offload(flags, model.num_layers, stage.policy);
  read_precision(flags, plan);
  const std::int64_t samples = std::int64_t{degrees.micro_batch} * degrees.data;
  GANTRY_CHECK(plan.global_batch >= samples && plan.global_batch % samples == 0,
               "--micro-batch-size {} times {} data-parallel replicas does not divide the batch of {}",
               degrees.micro_batch, degrees.data, plan.global_batch);
  GANTRY_CHECK(plan.global_batch / samples <= 1'000'000'000, "a batch of {} is absurd", plan.global_batch);
  plan.accumulation = static_cast<int>(plan.global_batch / samples);
  plan.chunks = read_chunks(flags, degrees.stages, model.num_layers);
  const std::vector<int> split = split_layers(flags, degrees.stages, model.num_layers, &plan.chunks);
  plan.schedule = plan.chunks > 1 ? Schedule::kInterleaved : Schedule::kOneFOneB;
  add_stages(split, stage, read_recompute(flags, unused), plan);
  require_sound(plan, model, cluster);
  if (ignored != nullptr) *ignored = std::move(unused);
  return plan;
}

}  // namespace gantry::plan
