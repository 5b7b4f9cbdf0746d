#include "gantry/cost/sections.h"

#include <algorithm>
#include <array>

#include "gantry/base/check.h"
#include "gantry/cost/block_memory.h"
#include "gantry/cost/collectives.h"
#include "gantry/spec/memory_modes.h"
#include "gantry/spec/operator_graph.h"
#include "gantry/spec/sharding.h"
#include "gantry/spec/tensor_table.h"
#include "gantry/symbolic/program.h"

namespace gantry::cost {
namespace {

spec::GraphOptions graph_options(const CostOptions& options, const SectionKey& key) {
  spec::GraphOptions graph;
  graph.activation_bytes = element_bytes(options.dtype);
  graph.weight_bytes = graph.activation_bytes;
  graph.sequence_parallel = key.sequence_parallel;
  if (options.artifact_terms) graph.loss_bytes = graph.activation_bytes;
  if (options.chunked_loss) graph.loss = spec::LossMemory::kChunked;
  return spec::with_memory(graph, layer_memory(key.mode, options.flash_attention));
}

bool is_linear_bias(const spec::TensorSpec& tensor) {
  return tensor.shape.size() == 1 && tensor.role != spec::TensorRole::kNorm;
}

// Elements of the weights on one rank. The released code has no biases, no positions and no final norm.
double weight_elements(const spec::ModelConfig& model, const spec::OperatorGraph& graph, spec::NodeRange range,
                       const spec::Bindings& sizes, bool artifact, bool kv_repeated) {
  const auto table = spec::tensor_table(model);
  double elements = 0;
  for (int i = range.first; i < range.end; ++i) {
    const spec::GraphNode& node = graph.nodes()[static_cast<std::size_t>(i)];
    if (!artifact) {
      elements += node.weight_elements.evaluate(sizes);
      continue;
    }
    for (const int index : node.weights) {
      const spec::TensorSpec& tensor = table[static_cast<std::size_t>(index)];
      const bool skipped = is_linear_bias(tensor) || tensor.role == spec::TensorRole::kPosition ||
                           (tensor.layer < 0 && tensor.role == spec::TensorRole::kNorm);
      if (!skipped) elements += spec::shard_elements(model, tensor, kv_repeated).evaluate(sizes);
    }
  }
  return elements;
}

// Half of a linear's backward makes the gradient of its weight.
double weight_gradient_seconds(const SectionSeconds& seconds) {
  double sum = 0;
  for (const OperatorLine& line : seconds.lines) sum += line.op == "linear" ? line.backward_s / 2 : 0;
  return sum;
}

// `plain`, priced as a whole, in parts: what a checkpointed block does as well, and the rest.
void split_rerun(Section& plain, const Section& checkpointed) {
  plain.rerun_s = std::max(plain.backward_s - checkpointed.backward_s, 0.0);
  plain.backward_s = checkpointed.backward_s;
  plain.tp_rerun_s = std::max(plain.tp_backward_s - checkpointed.tp_backward_s, 0.0);
  plain.tp_backward_s = checkpointed.tp_backward_s;
  const double peak = checkpointed.peak_backward + checkpointed.checkpointed_peak_more;
  plain.checkpointed_peak_more = std::max(peak - plain.peak_backward, 0.0);
}

struct MemoryValues {
  double saved_checkpointed, saved, peak_forward, peak_backward, peak_recomputed, output, scores;
};

MemoryValues memory_of(const spec::OperatorGraph& graph, spec::NodeRange range, const spec::Bindings& sizes) {
  const SectionMemory memory = analyse(graph, range);
  const std::array outputs{memory.saved_checkpointed, memory.saved,  memory.peak_forward,    memory.peak_backward,
                           memory.peak_recomputed,    memory.output, memory.attention_scores};
  const symbolic::Program program = symbolic::compile(outputs);
  std::vector<double> values;
  for (const std::string& symbol : program.symbols()) {
    values.push_back(symbol == "b" ? sizes.batch : symbol == "s" ? sizes.sequence : sizes.tensor_parallel);
  }
  const auto result = program.evaluate(values);
  return {result[0], result[1], result[2], result[3], result[4], result[5], result[6]};
}

}  // namespace

int element_bytes(std::string_view dtype) {
  if (dtype == "fp32") return 4;
  GANTRY_CHECK(dtype == "fp16" || dtype == "bf16", "dtype '{}' is not one of fp16, bf16, fp32", dtype);
  return 2;
}

SectionTable::SectionTable(const spec::ModelConfig& model, std::int64_t sequence, const Profile& profile,
                           const Cluster& cluster, const CostOptions& options)
    : model_(model),
      sequence_(sequence),
      profile_(profile),
      cluster_(cluster),
      options_(options),
      pricer_(profile, options.dtype, options.rules) {
  model_.num_layers = 1;  // all blocks are alike
}

const SectionTable::Entry& SectionTable::entry(const SectionKey& key) const {
  const std::lock_guard lock(mutex_);
  return locked_entry(key);
}

const SectionTable::Entry& SectionTable::locked_entry(const SectionKey& key) const {
  const auto found = entries_.find(key);
  if (found != entries_.end()) return found->second;
  Entry entry = make(key);
  if (checkpointed_mode(key.mode) != key.mode) {
    SectionKey checkpointed = key;
    checkpointed.mode = checkpointed_mode(key.mode);
    split_rerun(entry.sections.block, locked_entry(checkpointed).sections.block);
  }
  return entries_.emplace(key, std::move(entry)).first->second;
}

const Sections& SectionTable::at(const SectionKey& key) const { return entry(key).sections; }
const std::vector<OperatorLine>& SectionTable::lines(const SectionKey& key) const { return entry(key).lines; }

SectionTable::Entry SectionTable::make(const SectionKey& key) const {
  Entry entry;
  spec::GraphOptions options = graph_options(options_, key);
  SectionKey stock_key = key;
  stock_key.mode = LayerMode::kStore;
  spec::GraphOptions stock_options = graph_options(options_, stock_key);
  const bool kv_repeated = key.tensor_parallel > model_.num_kv_heads;
  options.kv_heads_repeated = stock_options.kv_heads_repeated = kv_repeated;
  const spec::OperatorGraph graph = spec::operator_graph(model_, options);
  const spec::OperatorGraph stock = spec::operator_graph(model_, stock_options);
  const spec::Bindings sizes{static_cast<double>(key.micro_batch), static_cast<double>(sequence_),
                             static_cast<double>(sequence_), static_cast<double>(key.tensor_parallel)};
  const auto section = [&](spec::NodeRange range) {
    Section result;
    const SectionSeconds seconds = pricer_.price(graph, range, sizes, &stock);
    result.forward_s = seconds.forward_s;
    result.backward_s = seconds.backward_s;
    entry.lines.insert(entry.lines.end(), seconds.lines.begin(), seconds.lines.end());
    result.weight_gradient_s = weight_gradient_seconds(seconds);
    result.elements = weight_elements(model_, graph, range, sizes, options_.artifact_terms, kv_repeated);
    result.accumulate_s = pricer_.accumulate(result.elements).forward_s;
    result.optimizer_s = pricer_.optimizer_s(result.elements);
    for (int i = range.first; i < range.end; ++i) {
      const spec::GraphNode& node = graph.nodes()[static_cast<std::size_t>(i)];
      const GroupShape group{1, key.tensor_parallel};
      const auto reduce = [&](const spec::SymbolicSize& bytes) {
        return collective_s(profile_, Collective::kAllReduce, bytes.evaluate(sizes), group, &estimated_links_);
      };
      if (!node.all_reduce_bytes.is_zero()) result.tp_forward_s += reduce(node.all_reduce_bytes);
      if (!node.backward_all_reduce_bytes.is_zero()) result.tp_backward_s += reduce(node.backward_all_reduce_bytes);
      if (!node.backward_all_gather_bytes.is_zero()) {
        const double bytes = node.backward_all_gather_bytes.evaluate(sizes);
        result.tp_backward_s += collective_s(profile_, Collective::kAllGather, bytes, group, &estimated_links_);
      }
    }
    const MemoryValues memory = memory_of(graph, range, sizes);
    result.saved_checkpointed = memory.saved_checkpointed;
    result.saved = memory.saved;
    result.peak_forward = memory.peak_forward;
    result.peak_backward = memory.peak_backward;
    result.checkpointed_peak_more = memory.peak_recomputed - memory.peak_backward;
    result.output = memory.output;
    result.scores = memory.scores;
    return result;
  };
  spec::NodeRange after = graph.after_layers();
  const bool norm_first = graph.nodes()[static_cast<std::size_t>(after.first)].kind == spec::OpKind::kNorm;
  if (options_.artifact_terms && norm_first) ++after.first;
  entry.sections = {section(graph.before_layers()), section(graph.layer(0)), section(after)};
  return entry;
}

ProvenanceCount SectionTable::provenance() const {
  const std::lock_guard lock(mutex_);
  ProvenanceCount count;
  for (const auto& [key, entry] : entries_) {
    for (const OperatorLine& line : entry.lines) ++count.operators[static_cast<std::size_t>(line.provenance)];
  }
  count.estimated_links = estimated_links_;
  return count;
}

}  // namespace gantry::cost
