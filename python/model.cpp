#include "python/model.h"

#include <ATen/ATen.h>

#include "gantry/base/check.h"
#include "gantry/models/load.h"

namespace gantry::python {
namespace {

// Integers of any width, on the model's device, of the shape of `ids`.
at::Tensor checked(const char* name, const at::Tensor& tensor, at::IntArrayRef shape, at::ScalarType type,
                   at::Device device) {
  GANTRY_CHECK(tensor.sizes() == shape, "{}: expected the shape of ids, {}, got {}", name, c10::str(shape),
               c10::str(tensor.sizes()));
  GANTRY_CHECK(!tensor.is_floating_point() && !tensor.is_complex(), "{}: expected integers, got {}", name,
               c10::toString(tensor.scalar_type()));
  return tensor.detach().to(device, type).contiguous();
}

}  // namespace

models::ModelInputs make_inputs(const Model& model, const at::Tensor& ids, const InputTensors& others) {
  const at::Device device = model.network->device();
  GANTRY_CHECK(ids.dim() == 2 && ids.numel() > 0,
               "ids: expected a tensor [batch, tokens] of at least one token, got {}", c10::str(ids.sizes()));
  const at::IntArrayRef shape = ids.sizes();
  models::ModelInputs inputs{.ids = checked("ids", ids, shape, at::kLong, device)};
  if (others.positions) {
    inputs.positions = checked("positions", *others.positions, shape, at::kLong, device);
    const std::int64_t most = model.network->config().max_positions;
    GANTRY_CHECK(inputs.positions.ge(0).logical_and(inputs.positions.lt(most)).all().item<bool>(),
                 "positions: expected 0 to {}, got {} to {}", most - 1, inputs.positions.min().item<std::int64_t>(),
                 inputs.positions.max().item<std::int64_t>());
  }
  if (others.row_starts) {
    inputs.row_starts = checked("row_starts", *others.row_starts, shape, at::kInt, device);
    const at::Tensor own = at::arange(shape[1], inputs.row_starts.options());
    GANTRY_CHECK(inputs.row_starts.ge(0).logical_and(inputs.row_starts.le(own)).all().item<bool>(),
                 "row_starts: the first visible token of a token lies between 0 and itself");
  }
  if (others.key_mask) inputs.key_mask = checked("key_mask", *others.key_mask, shape, at::kBool, device);
  if (others.token_types) inputs.token_types = checked("token_types", *others.token_types, shape, at::kLong, device);
  return inputs;
}

at::Tensor make_labels(const Model& model, const at::Tensor& ids, const std::optional<at::Tensor>& labels) {
  if (labels) return checked("labels", *labels, ids.sizes(), at::kLong, model.network->device());
  GANTRY_CHECK(model.network->config().is_decoder(),
               "labels: an encoder ({}) predicts masked tokens and needs labels; -100 marks those that don't count",
               model.network->config().model_type);
  GANTRY_CHECK(ids.dim() == 2 && ids.size(1) >= 2,
               "ids: expected at least 2 tokens a row, the next ones are the labels");
  at::Tensor next = at::full_like(ids, -100);
  next.narrow(1, 0, ids.size(1) - 1).copy_(ids.narrow(1, 1, ids.size(1) - 1));
  return next;
}

void make_parameters_writable(models::LanguageModel& network) {
  for (auto& parameter : network.parameters()) {
    // Memory of torch's allocator can be resized; a mapped file can't, and writing to it would kill the process.
    if (!parameter.storage().resizable()) parameter.set_data(parameter.detach().clone());
  }
}

void save(const Model& model, const std::filesystem::path& path) {
  GANTRY_CHECK(!model.has_lora,
               "the model has low-rank updates beside its weights; call the trainer's merge_lora() to save the whole "
               "model, or its save_adapter() to save the updates alone");
  models::save_model(*model.network, model.tokenizer.get(), path);
}

}  // namespace gantry::python
