#include "gantry/measure/operators.h"

#include <cmath>
#include <set>

#include "gantry/base/check.h"
#include "gantry/cost/node_operators.h"
#include "gantry/measure/operator_passes.h"
#include "gantry/spec/operator_graph.h"
#include "gantry/tensor/dtype.h"

namespace gantry::measure {
namespace {

// A forward of nothing is not a measurement, and a profile wants more than 0.
constexpr double kLeastForwardS = 1e-7;

class ShapeList {
 public:
  void add(std::string op, std::vector<std::int64_t> sizes) {
    if (seen_.emplace(op, sizes).second) shapes_.push_back({std::move(op), std::move(sizes)});
  }
  std::vector<OperatorShape> take() { return std::move(shapes_); }

 private:
  std::vector<OperatorShape> shapes_;
  std::set<std::pair<std::string, std::vector<std::int64_t>>> seen_;
};

void add_accumulations(ShapeList& shapes, const spec::OperatorGraph& graph, const spec::Bindings& sizes) {
  for (const spec::NodeRange range : {graph.before_layers(), graph.layer(0), graph.after_layers()}) {
    double elements = 0;
    for (int i = range.first; i < range.end; ++i) {
      elements += graph.nodes()[static_cast<std::size_t>(i)].weight_elements.evaluate(sizes);
    }
    if (elements >= 1) shapes.add("accumulate", {std::llround(elements)});
  }
}

}  // namespace

std::vector<OperatorShape> operators_to_measure(const spec::ModelConfig& model, std::int64_t sequence,
                                                std::span<const std::int64_t> batches, at::ScalarType dtype) {
  GANTRY_CHECK(sequence >= 1 && sequence <= model.max_positions,
               "--sequence must be from 1 to {}, the model's positions; found {}", model.max_positions, sequence);
  spec::ModelConfig one_layer = model;
  one_layer.num_layers = 1;
  const int bytes = dtype == at::kFloat ? 4 : 2;
  const spec::OperatorGraph graph = spec::operator_graph(
      one_layer, {.activation_bytes = bytes, .weight_bytes = bytes, .attention = spec::AttentionMemory::kFlash});
  ShapeList shapes;
  for (const std::int64_t batch : batches) {
    GANTRY_CHECK(batch >= 1 && batch <= 4096, "--batch must hold numbers from 1 to 4096, found {}", batch);
    const spec::Bindings sizes{.batch = static_cast<double>(batch),
                               .sequence = static_cast<double>(sequence),
                               .context = static_cast<double>(sequence)};
    for (const spec::GraphNode& node : graph.nodes()) {
      for (cost::OperatorUse& use : cost::operators_of(graph, node, sizes, false)) {
        if (!use.by_product) shapes.add(std::move(use.op), std::move(use.sizes));
      }
    }
    add_accumulations(shapes, graph, sizes);
  }
  return shapes.take();
}

MeasuredOperator measure_operator(const OperatorShape& shape, const spec::ModelConfig& model, at::ScalarType dtype,
                                  at::Device device, const TimingOptions& options) {
  const OperatorPass pass = make_pass(shape, model, at::TensorOptions().dtype(dtype).device(device));
  const PassTiming timing = repeat(pass.run, options);
  MeasuredOperator result;
  result.time.op = shape.op;
  result.time.dtype = tensor::dtype_label(dtype);
  result.time.sizes = shape.sizes;
  result.time.forward_s = std::max(kLeastForwardS, timing.forward.median_s * pass.scale);
  result.time.backward_s = std::max(0.0, timing.backward.median_s * pass.scale);
  result.spread = std::max(timing.forward.spread, timing.backward.spread);
  result.runs = timing.forward.runs;
  return result;
}

}  // namespace gantry::measure
