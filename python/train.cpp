// gantry.Trainer and gantry.train.
#include <ATen/ATen.h>
#include <pybind11/stl/filesystem.h>
#include <torch/csrc/utils/pybind.h>

#include "gantry/base/options.h"
#include "gantry/tensor/dtype.h"
#include "gantry/train/checkpoint.h"
#include "gantry/train/lora.h"
#include "gantry/train/options.h"
#include "gantry/train/step.h"
#include "gantry/train/trainer.h"
#include "python/bindings.h"
#include "python/model.h"
#include "python/options.h"

namespace gantry::python {
namespace {

namespace fs = std::filesystem;

// Of the options of a run, those that a step depends on.
const FieldNames kStepFields = {"steps",        "accumulation",  "seed",     "dtype",        "lora_rank",
                                "lora_alpha",   "learning_rate", "schedule", "warmup_steps", "final_ratio",
                                "weight_decay", "beta1",         "beta2",    "eps",          "clip_norm"};

train::TrainOptions step_options(const py::kwargs& keywords) {
  train::TrainOptions options;
  set_options(options, keywords, "Trainer", kStepFields);
  const bool open_ended = !keywords.contains("steps");
  if (open_ended) {
    GANTRY_CHECK(!keywords.contains("schedule") || options.schedule == "constant",
                 "schedule '{}' needs steps, the number of steps until the rate has decayed", options.schedule);
    options.schedule = "constant";
    if (!keywords.contains("warmup_steps")) options.warmup_steps = 0;
  }
  train::TrainOptions complete = options;  // what a run has and a lone step hasn't
  complete.data = {"-"};
  complete.out = "-";
  if (open_ended) complete.steps = 1;
  train::validate(complete);
  return options;
}

// Training mode for the time of a step.
class TrainingMode {
 public:
  explicit TrainingMode(models::LanguageModel& network) : network_(network), before_(network.is_training()) {
    network_.train();
  }
  ~TrainingMode() { network_.train(before_); }
  TrainingMode(const TrainingMode&) = delete;
  TrainingMode& operator=(const TrainingMode&) = delete;

 private:
  models::LanguageModel& network_;
  bool before_;
};

class Trainer {
 public:
  Trainer(std::shared_ptr<Model> model, const py::kwargs& keywords)
      : model_(std::move(model)), options_(step_options(keywords)) {
    GANTRY_CHECK(!model_->has_lora, "the model has low-rank updates of another Trainer; call its merge_lora() first");
    const bool lora = options_.lora_rank > 0;
    const at::ScalarType dtype = tensor::parse_dtype(options_.dtype);
    GANTRY_CHECK(!lora || model_->network->dtype() == dtype,
                 "dtype: low-rank updates have the type of the weights, {}, not {}; load the model with dtype=\"{}\"",
                 tensor::dtype_label(model_->network->dtype()), options_.dtype, options_.dtype);
    const py::gil_scoped_release release;
    runner_ = std::make_unique<train::StepRunner>(*model_->network, options_);
    model_->has_lora = lora;
    number_ = ++model_->trainers;
  }

  train::StepReport step(const at::Tensor& ids, const std::optional<at::Tensor>& labels, const InputTensors& others) {
    check_owner();
    const auto batches = split(ids, labels, others);
    const TrainingMode dropout(*model_->network);
    const at::AutoGradMode gradients(true);
    const train::StepReport report = runner_->step(batches, steps_taken_);
    if (report.applied) ++steps_taken_;
    return report;
  }

  void merge_lora() {
    check_lora("merge");
    train::make_writable(*model_->network);
    train::merge_lora(*model_->network);
    model_->has_lora = false;
    ++model_->trainers;  // nothing is left to train
  }

  void save_adapter(const fs::path& path) const {
    check_lora("save");
    train::save_adapter(*model_->network, lora(), model_->source, path);
  }

  fs::path save_checkpoint(const fs::path& path, std::int64_t keep) const {
    check_owner();
    GANTRY_CHECK(keep >= 1, "keep: expected at least 1, got {}", keep);
    base::OrderedJson state;
    state["step"] = steps_taken_;
    state["options"] = base::options_to_json(options_);
    state["version"] = GANTRY_VERSION;
    return train::write_checkpoint(path, steps_taken_, keep, runner_->parameters(), runner_->optimizer(), state,
                                   [&](const fs::path& dir) {
                                     if (model_->has_lora) {
                                       train::save_adapter(*model_->network, lora(), model_->source, dir);
                                     } else {
                                       save(*model_, dir);
                                     }
                                   });
  }

  void load_checkpoint(const fs::path& path) {
    check_owner();
    const base::Json state = train::read_checkpoint(path, runner_->parameters(), runner_->optimizer());
    steps_taken_ = base::json_get<std::int64_t>(state, "step", (path / "trainer.json").string());
  }

  std::int64_t steps_taken() const { return steps_taken_; }
  const std::shared_ptr<Model>& model() const { return model_; }
  const train::TrainOptions& options() const { return options_; }

 private:
  train::LoraOptions lora() const { return {.rank = options_.lora_rank, .alpha = options_.lora_alpha}; }

  void check_owner() const {
    GANTRY_CHECK(
        number_ == model_->trainers,
        "this Trainer no longer owns the model's parameters: a newer one was made, or merge_lora() was called");
  }

  void check_lora(const char* what) const {
    check_owner();
    GANTRY_CHECK(model_->has_lora, "there are no low-rank updates to {}; make the Trainer with lora_rank", what);
  }

  std::vector<train::TrainBatch> split(const at::Tensor& ids, const std::optional<at::Tensor>& labels,
                                       const InputTensors& others) const {
    const models::ModelInputs inputs = make_inputs(*model_, ids, others);
    const at::Tensor targets = make_labels(*model_, inputs.ids, labels);
    const std::int64_t rows = inputs.ids.size(0), parts = options_.accumulation;
    GANTRY_CHECK(rows % parts == 0, "ids: {} rows can't be split into accumulation = {} equal parts", rows, parts);
    GANTRY_CHECK(targets.ge(0).any().item<bool>(), "labels: none of them counts; all are negative");
    std::vector<train::TrainBatch> batches;
    for (std::int64_t part = 0; part < parts; ++part) {
      const auto slice = [&](const at::Tensor& all) {
        return all.defined() ? all.narrow(0, part * rows / parts, rows / parts) : all;
      };
      train::TrainBatch batch;
      batch.inputs = {.ids = slice(inputs.ids),
                      .positions = slice(inputs.positions),
                      .row_starts = slice(inputs.row_starts),
                      .key_mask = slice(inputs.key_mask),
                      .token_types = slice(inputs.token_types)};
      batch.labels = slice(targets);
      batch.counted = batch.labels.ge(0).sum().item<std::int64_t>();
      batch.tokens = batch.labels.numel();
      batches.push_back(std::move(batch));
    }
    return batches;
  }

  std::shared_ptr<Model> model_;
  train::TrainOptions options_;
  std::unique_ptr<train::StepRunner> runner_;
  std::int64_t number_ = 0;
  std::int64_t steps_taken_ = 0;
};

train::TrainResult train_run(const fs::path& model, const py::kwargs& keywords) {
  train::TrainOptions options;
  set_options(options, keywords, "train");
  const InterruptScope scope;
  const train::TrainResult result = [&] {
    try {
      const py::gil_scoped_release release;
      return train::train(model.string(), options, GANTRY_VERSION);
    } catch (const base::Interrupted& error) {  // before the first step
      scope.raise_if_interrupted(error.what());
      throw;
    }
  }();
  if (result.interrupted) {
    scope.raise_if_interrupted(
        fmt::format("interrupted after step {}; the same call with resume=True goes on from there", result.steps));
  }
  return result;
}

constexpr const char* kTrainerDoc =
    "Trains a model step by step on batches that you make: AdamW with decoupled decay of matrices (not of norms, "
    "biases),\n"
    "clipping, accumulation, bf16 with exact fp32 masters.\n\n"
    "The model's parameters become views of the Trainer's buffers, in `dtype`. Without `steps` the learning rate is\n"
    "constant from the first step on; with it, warm-up and decay are those of `schedule`. The newest Trainer of a "
    "model\n"
    "owns its parameters. InputError names an option that is out of range.";

constexpr const char* kStepDoc =
    "One optimiser step on ids [batch, tokens]; returns a StepReport.\n\n"
    "labels [batch, tokens]: what each position predicts, that is the *next* token for a language model; negative "
    "ones\n"
    "don't count; without labels they are the next tokens of ids. The other tensors are those of Model.forward. With\n"
    "accumulation = n the rows are split into n equal micro-batches. InputError for ids outside the vocabulary, other\n"
    "shapes, and batches in which no label counts.";

constexpr const char* kTrainDoc =
    "A whole run, as `gantry train` does it: data in; checkpoints, metrics.jsonl and the trained model in `out`.\n\n"
    "model is a folder or .gguf file. Returns a TrainResult. Progress goes to stderr. Ctrl-C writes a checkpoint and\n"
    "raises KeyboardInterrupt; the same call with resume=True goes on. InputError for bad options or data; "
    "gantry.Error\n"
    "when the loss stops being finite or the disk is full.";

void bind_trainer(py::module_& module) {
  using Optional = std::optional<at::Tensor>;
  py::class_<Trainer> cls(module, "Trainer",
                          (kTrainerDoc + describe_options<train::TrainOptions>(kStepFields)).c_str());
  cls.attr("__module__") = "gantry";
  cls.def(py::init<std::shared_ptr<Model>, const py::kwargs&>(), py::arg("model"));
  cls.def(
      "step",
      [](Trainer& self, const at::Tensor& ids, const Optional& labels, const Optional& positions,
         const Optional& row_starts, const Optional& key_mask, const Optional& token_types) {
        return self.step(ids, labels, {positions, row_starts, key_mask, token_types});
      },
      py::arg("ids"), py::arg("labels") = py::none(), py::kw_only(), py::arg("positions") = py::none(),
      py::arg("row_starts") = py::none(), py::arg("key_mask") = py::none(), py::arg("token_types") = py::none(),
      py::call_guard<py::gil_scoped_release>(), kStepDoc);
  cls.def_property_readonly("model", &Trainer::model, "The model in training.");
  cls.def_property_readonly("steps_taken", &Trainer::steps_taken, "Optimiser steps applied so far.");
  cls.def_property_readonly(
      "options",
      [](const Trainer& self) {
        py::dict values;
        for (const auto& [name, field] : list_options(self.options(), kStepFields)) {
          values[name] = py::reinterpret_borrow<py::tuple>(field)[0];
        }
        return values;
      },
      "The options in force, as a dict.");
  cls.def("merge_lora", &Trainer::merge_lora, py::call_guard<py::gil_scoped_release>(),
          "Folds the low-rank updates into the weights. This Trainer then has nothing left to train.");
  cls.def("save_adapter", &Trainer::save_adapter, py::arg("path"), py::call_guard<py::gil_scoped_release>(),
          "Writes the low-rank updates alone, adapter_model.safetensors and adapter_config.json, as PEFT reads them.");
  cls.def(
      "save_checkpoint", &Trainer::save_checkpoint, py::arg("path"), py::kw_only(), py::arg("keep") = 2,
      py::call_guard<py::gil_scoped_release>(),
      "Writes path/checkpoint-<step> (model, optimiser, random generator), keeps the newest `keep` and returns where.\n"
      "gantry.Error when the disk is full; older checkpoints are intact then.");
  cls.def("load_checkpoint", &Trainer::load_checkpoint, py::arg("path"), py::call_guard<py::gil_scoped_release>(),
          "Restores what save_checkpoint wrote, bit for bit. InputError when the folder does not fit the model.");
}

void bind_results(py::module_& module) {
  using train::StepReport;
  py::class_<StepReport> report(module, "StepReport", "What Trainer.step did.");
  report.attr("__module__") = "gantry";
  report.def_readonly("loss", &StepReport::loss, "Mean over the labels that count, before the step.");
  report.def_readonly("gradient_norm", &StepReport::gradient_norm, "Global norm before clipping.");
  report.def_readonly("learning_rate", &StepReport::learning_rate, "Rate of this step.");
  report.def_readonly("tokens", &StepReport::tokens, "Tokens of the batch, padding included.");
  report.def_readonly("applied", &StepReport::applied,
                      "False when loss or gradients were not finite; nothing was changed then.");
  report.def("__repr__", [](const StepReport& self) {
    return fmt::format("StepReport(loss={:.6g}, gradient_norm={:.4g}, learning_rate={:.4g}, tokens={}, applied={})",
                       self.loss, self.gradient_norm, self.learning_rate, self.tokens, self.applied ? "True" : "False");
  });
  using train::TrainResult;
  py::class_<TrainResult> result(module, "TrainResult", "What train did.");
  result.attr("__module__") = "gantry";
  result.def_readonly("steps", &TrainResult::steps, "Completed steps, those before a resume included.");
  result.def_readonly("first_loss", &TrainResult::first_loss, "Loss of this call's first step.");
  result.def_readonly("final_loss", &TrainResult::final_loss, "Loss of its last step.");
  result.def_readonly("validation_before", &TrainResult::validation_before,
                      "Perplexity on held-out data before training; 0 without any.");
  result.def_readonly("validation_after", &TrainResult::validation_after, "The same after training.");
  result.def_readonly("tokens_per_s", &TrainResult::tokens_per_s, "Median over the steps.");
  result.def_readonly("peak_memory_bytes", &TrainResult::peak_memory_bytes, "Most memory the process ever held.");
  result.def_readonly("interrupted", &TrainResult::interrupted, "Whether the run stopped early, after a checkpoint.");
  result.def_readonly("micro_batch", &TrainResult::micro_batch, "Sequences of a step's largest micro-batch.");
  result.def_readonly("accumulation", &TrainResult::accumulation, "Micro-batches of a step.");
  result.def_property_readonly(
      "micro_batches", [](const TrainResult& self) -> py::object { return json_to_python(self.micro_batches.dump()); },
      "Sizes that batch=\"auto\" tried, a dict each, one of them chosen; None without it.");
  result.def("__repr__", [](const TrainResult& self) {
    return fmt::format("TrainResult(steps={}, first_loss={:.4f}, final_loss={:.4f}, tokens_per_s={:.0f})", self.steps,
                       self.first_loss, self.final_loss, self.tokens_per_s);
  });
}

}  // namespace

void bind_train(py::module_& module) {
  bind_results(module);
  bind_trainer(module);
  module.def("train", train_run, py::arg("model"), (kTrainDoc + describe_options<train::TrainOptions>()).c_str());
  module.def(
      "train_options", [] { return list_options(train::TrainOptions{}); },
      "name -> (default, help) of every option of train.");
  module.def(
      "trainer_options", [] { return list_options(train::TrainOptions{}, kStepFields); },
      "name -> (default, help) of every option of Trainer.");
}

}  // namespace gantry::python
