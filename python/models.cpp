// gantry.Model, gantry.load, gantry.from_scratch.
#include <ATen/ATen.h>
#include <pybind11/stl/filesystem.h>
#include <torch/csrc/utils/pybind.h>

#include <array>

#include "gantry/base/interrupt.h"
#include "gantry/models/generate.h"
#include "gantry/models/load.h"
#include "gantry/models/perplexity.h"
#include "gantry/spec/tensor_table.h"
#include "gantry/tensor/dtype.h"
#include "python/bindings.h"
#include "python/model.h"
#include "python/options.h"

namespace gantry::python {
namespace {

namespace fs = std::filesystem;
using ModelPointer = std::shared_ptr<Model>;

std::optional<at::ScalarType> parse_type(const py::object& dtype) {
  if (dtype.is_none()) return std::nullopt;
  if (py::isinstance<py::str>(dtype)) return tensor::parse_dtype(dtype.cast<std::string>());
  const auto type = dtype.cast<at::ScalarType>();
  GANTRY_CHECK(type == at::kFloat || type == at::kBFloat16 || type == at::kHalf,
               "dtype: expected torch.float32, torch.bfloat16 or torch.float16, got {}", c10::toString(type));
  return type;
}

// A model folder without any of these has no tokeniser; one with a damaged one is an error.
bool has_tokenizer(const fs::path& model) {
  constexpr std::array kFiles = {"tokenizer.json",      "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
                                 "sentencepiece.model", "vocab.json",      "vocab.txt"};
  return model.extension() == ".gguf" ||
         std::any_of(kFiles.begin(), kFiles.end(), [&](const char* name) { return fs::exists(model / name); });
}

ModelPointer load(const fs::path& path, const py::object& dtype, bool check_finite) {
  const models::LoadOptions options{.dtype = parse_type(dtype), .check_finite = check_finite};
  return interruptible([&] {
    auto model = std::make_shared<Model>();
    model->source = path.string();
    model->network = models::load_model(path, options);
    const fs::path files = models::resolve_model_path(path);
    if (has_tokenizer(files)) model->tokenizer = text::load_tokenizer(files);
    return model;
  });
}

ModelPointer from_scratch(const py::object& config, const py::object& dtype, std::uint64_t seed,
                          std::shared_ptr<text::Tokenizer> tokenizer) {
  auto model = std::make_shared<Model>();
  spec::ModelConfig parsed;
  if (py::isinstance<py::dict>(config)) {
    parsed = spec::config_from_hf_text(python_to_json(config, "config").dump(), "config");
  } else {
    const auto path = config.cast<fs::path>();
    model->source = path.string();
    parsed = models::load_config(path);
    const fs::path files = models::resolve_model_path(path);
    if (!tokenizer && has_tokenizer(files)) tokenizer = text::load_tokenizer(files);
  }
  const auto type = parse_type(dtype);
  return interruptible([&] {
    model->tokenizer = std::move(tokenizer);
    model->network = models::make_model(parsed);
    models::initialize_parameters(*model->network, seed);
    for (auto& parameter : model->network->parameters()) {
      if (type) parameter.set_data(parameter.detach().to(*type));
    }
    model->network->eval();
    return model;
  });
}

py::dict parameters(const Model& model) {
  make_parameters_writable(*model.network);
  const auto by_name = model.network->parameter_map();
  py::dict result;
  for (const spec::TensorSpec& tensor : spec::tensor_table(model.network->config())) {
    result[py::str(tensor.name)] = by_name.at(tensor.name);
  }
  return result;
}

at::Tensor hidden(const Model& model, const at::Tensor& ids, const InputTensors& others) {
  const py::gil_scoped_release release;
  return model.network->hidden(make_inputs(model, ids, others));
}

at::Tensor forward(const Model& model, const at::Tensor& ids, const InputTensors& others) {
  const py::gil_scoped_release release;
  return model.network->logits(model.network->hidden(make_inputs(model, ids, others)));
}

at::Tensor loss(const Model& model, const at::Tensor& ids, const std::optional<at::Tensor>& labels,
                const InputTensors& others) {
  const py::gil_scoped_release release;
  const models::ModelInputs inputs = make_inputs(model, ids, others);
  return model.network->loss(inputs, make_labels(model, inputs.ids, labels));
}

text::Tokenizer& tokenizer_of(const Model& model, const char* why) {
  GANTRY_CHECK(model.tokenizer != nullptr, "this model came without a tokeniser, which {} needs; give token ids", why);
  return *model.tokenizer;
}

models::Generation generate(const Model& model, const py::object& prompt, const py::object& on_text,
                            const py::kwargs& keywords) {
  models::GenerateOptions options;
  set_options(options, keywords, "generate");
  models::validate(options.sampling);
  if (!on_text.is_none() && !PyCallable_Check(on_text.ptr())) throw py::type_error("on_text: expected a function");
  const bool is_text = py::isinstance<py::str>(prompt);
  const auto ids =
      is_text ? tokenizer_of(model, "a prompt of text").encode(prompt.cast<std::string>(), {.add_special = true})
              : ids_from_python(prompt);
  if (!model.tokenizer) {
    GANTRY_CHECK(options.stop.empty() && on_text.is_none(),
                 "this model came without a tokeniser, which stop and on_text need");
    return interruptible([&] { return models::generate_ids(*model.network, ids, options); });
  }
  models::TextCallback show;
  if (!on_text.is_none()) {
    show = [&on_text](std::string_view piece) {
      const py::gil_scoped_acquire acquire;
      return on_text(to_str(piece)).ptr() != Py_False;
    };
  }
  return interruptible([&] { return models::generate(*model.network, *model.tokenizer, ids, options, show); });
}

double perplexity(const Model& model, const py::object& text, std::int64_t window, std::int64_t max_windows,
                  std::int64_t batch) {
  const auto ids =
      py::isinstance<py::str>(text)
          ? tokenizer_of(model, "perplexity of text").encode(text.cast<std::string>(), {.parse_special = false})
          : ids_from_python(text);
  const models::PerplexityOptions options{.window = window, .max_windows = max_windows, .batch = batch};
  return interruptible([&] {
           return models::perplexity(*model.network, ids, options, [](std::int64_t) { return !base::interrupted(); });
         })
      .perplexity;
}

std::string describe(const Model& model) {
  return fmt::format("<gantry.Model {} of {:.4g} M parameters in {}>", model.network->config().model_type,
                     static_cast<double>(spec::parameter_count(model.network->config())) / 1e6,
                     tensor::dtype_label(model.network->dtype()));
}

constexpr const char* kForwardDoc =
    "Logits [batch, tokens, vocabulary] of token ids [batch, tokens], in the model's type; gradients flow.\n\n"
    "ids: integer tensor. positions [batch, tokens]: 0, 1, 2, ... without. row_starts [batch, tokens]: the first token "
    "of\n"
    "the row that each token sees, for packed documents. key_mask [batch, tokens]: False hides padding (encoders).\n"
    "token_types [batch, tokens]: BERT's segments. InputError for other shapes and for ids outside the vocabulary.";

constexpr const char* kGenerateDoc =
    "Goes on from a prompt of text (BOS added where the model wants one), or of token ids as they are.\n\n"
    "on_text is called with each piece of text as it becomes final: whole characters, never part of a stop text.\n"
    "Returning False from it stops. Ends at an end token, a stop text, max_tokens or the model's last position. The "
    "GIL is\n"
    "free meanwhile; Ctrl-C raises KeyboardInterrupt. InputError for options out of range and prompts that are too "
    "long.";

constexpr const char* kLossDoc =
    "Mean of -log p(label) as a scalar tensor, without ever forming the logits; gradients flow.\n\n"
    "labels [batch, tokens]: what each position predicts, that is the *next* token for a language model; negative "
    "ones\n"
    "don't count. Without labels they are the next tokens of ids. For an encoder labels must be given.";

constexpr const char* kPerplexityDoc =
    "exp of the mean negative log-likelihood of a text (special tokens in it are plain text) or of token ids.\n\n"
    "The tokens are cut into whole windows of `window`; positions restart in each, and its tokens after the first are\n"
    "predicted. max_windows limits them (0: all); batch is the number of windows a forward pass. InputError when "
    "there\n"
    "are fewer than 2 tokens or the window exceeds the model's positions.";

constexpr const char* kParametersDoc =
    "Hugging Face's name -> tensor, in the order of the files. The tensors share the model's memory: changing them in\n"
    "place (under torch.no_grad()) changes the model, and their .grad is filled by backward(). The first call gives\n"
    "parameters that are still views of a mapped file memory of their own.";

constexpr const char* kModelDoc =
    "A language model and its tokeniser. Made by gantry.load or gantry.from_scratch. It is in evaluation mode (no "
    "dropout)\n"
    "until train() is called. Use one model from one thread at a time.";

using InputsFunction = at::Tensor (*)(const Model&, const at::Tensor&, const InputTensors&);

// The same keywords for every function that takes model inputs.
void def_inputs(py::class_<Model, ModelPointer>& cls, const char* name, InputsFunction function, const char* doc) {
  using Optional = std::optional<at::Tensor>;
  cls.def(
      name,
      [function](const Model& self, const at::Tensor& ids, const Optional& positions, const Optional& row_starts,
                 const Optional& key_mask, const Optional& token_types) {
        return function(self, ids, {positions, row_starts, key_mask, token_types});
      },
      py::arg("ids"), py::kw_only(), py::arg("positions") = py::none(), py::arg("row_starts") = py::none(),
      py::arg("key_mask") = py::none(), py::arg("token_types") = py::none(), doc);
}

void bind_computing(py::class_<Model, ModelPointer>& cls) {
  using Optional = std::optional<at::Tensor>;
  def_inputs(cls, "forward", forward, kForwardDoc);
  def_inputs(cls, "__call__", forward, "The same as forward.");
  def_inputs(cls, "hidden", hidden,
             "The states [batch, tokens, hidden] that the output head reads; arguments of forward.");
  cls.def(
      "loss",
      [](const Model& self, const at::Tensor& ids, const Optional& labels, const Optional& positions,
         const Optional& row_starts, const Optional& key_mask, const Optional& token_types) {
        return loss(self, ids, labels, {positions, row_starts, key_mask, token_types});
      },
      py::arg("ids"), py::arg("labels") = py::none(), py::kw_only(), py::arg("positions") = py::none(),
      py::arg("row_starts") = py::none(), py::arg("key_mask") = py::none(), py::arg("token_types") = py::none(),
      kLossDoc);
  cls.def("generate", generate, py::arg("prompt"), py::arg("on_text") = py::none(),
          (kGenerateDoc + describe_options<models::GenerateOptions>()).c_str());
  cls.def("perplexity", perplexity, py::arg("text"), py::arg("window") = 1024, py::kw_only(),
          py::arg("max_windows") = 0, py::arg("batch") = 1, kPerplexityDoc);
}

void bind_model(py::module_& module) {
  py::class_<Model, ModelPointer> cls(module, "Model", kModelDoc);
  cls.attr("__module__") = "gantry";
  bind_computing(cls);
  cls.def_property_readonly(
      "config",
      [](const Model& self) {
        const std::string type = c10::toString(self.network->dtype());
        return json_to_python(spec::config_to_hf_text(self.network->config(), type == "BFloat16" ? "bfloat16"
                                                                              : type == "Half"   ? "float16"
                                                                                                 : "float32"));
      },
      "The configuration as the dict of a config.json.");
  cls.def_property_readonly(
      "dtype", [](const Model& self) { return self.network->dtype(); }, "Type of the parameters.");
  cls.def_readonly("tokenizer", &Model::tokenizer, "The model's tokeniser, or None.");
  cls.def_property_readonly(
      "num_parameters", [](const Model& self) { return spec::parameter_count(self.network->config()); },
      "Number of parameters, a tied matrix counted once.");
  cls.def("parameters", parameters, kParametersDoc);
  cls.def_property_readonly(
      "training", [](const Model& self) { return self.network->is_training(); }, "Whether dropout is on.");
  cls.def(
      "train",
      [](const ModelPointer& self, bool mode) {
        self->network->train(mode);
        return self;
      },
      py::arg("mode") = true, "Switches dropout on; returns the model.");
  cls.def(
      "eval",
      [](const ModelPointer& self) {
        self->network->eval();
        return self;
      },
      "Switches dropout off; returns the model.");
  cls.def("save", save, py::arg("path"), py::call_guard<py::gil_scoped_release>(),
          "Writes config.json, model.safetensors (in the model's type) and the tokeniser into a folder, which is made "
          "when\n"
          "missing. gantry.load and transformers read it. gantry.Error when the disk is full or the folder read-only.");
  cls.def("__repr__", describe);
}

void bind_generation(py::module_& module) {
  using models::Generation;
  py::class_<Generation> cls(module, "Generation", "What generate returns; str() of it is the text.");
  cls.attr("__module__") = "gantry";
  cls.def_property_readonly(
      "text", [](const Generation& self) { return to_str(self.text); },
      "Text without special tokens and without the stop text; '' for a model without a tokeniser.");
  cls.def_readonly("ids", &Generation::ids, "Generated ids, the end token included.");
  cls.def_readonly("finish_reason", &Generation::finish_reason,
                   "'stop' (end token or stop text), 'length', or 'interrupted' (on_text returned False).");
  cls.def_readonly("prefill_s", &Generation::prefill_s, "Seconds until the first token was chosen.");
  cls.def_readonly("decode_s", &Generation::decode_s, "Seconds for the tokens after the first.");
  cls.def("__str__", [](const Generation& self) { return to_str(self.text); });
  cls.def("__repr__", [](const Generation& self) {
    return fmt::format("<gantry.Generation of {} tokens, {}>", self.ids.size(), self.finish_reason);
  });
}

}  // namespace

void bind_models(py::module_& module) {
  bind_generation(module);
  bind_model(module);
  module.def(
      "load", load, py::arg("path"), py::arg("dtype") = py::none(), py::kw_only(), py::arg("check_finite") = true,
      "Loads a folder in Hugging Face layout, a folder with one .gguf file, or a .gguf file.\n\n"
      "dtype: 'fp32', 'bf16', 'fp16' or a torch.dtype; None keeps the file's own (a quantised GGUF becomes bf16).\n"
      "check_finite refuses weights with NaN or infinity, which reads each once. InputError when files are missing\n"
      "or damaged, or tensors are missing, left over or of other shapes.");
  module.def("from_scratch", from_scratch, py::arg("config"), py::arg("dtype") = "fp32", py::kw_only(),
             py::arg("seed") = 0, py::arg("tokenizer") = py::none(),
             "A model with random weights from a configuration: a model folder, or the dict of a config.json.\n\n"
             "The same seed gives the same weights. The tokeniser is the folder's unless one is given.");
  module.def(
      "generate_options", [] { return list_options(models::GenerateOptions{}); },
      "name -> (default, help) of every option of generate.");
}

}  // namespace gantry::python
