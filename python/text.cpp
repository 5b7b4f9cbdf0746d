// gantry.Tokenizer.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <memory>

#include "gantry/text/chat_template.h"
#include "gantry/text/tokenizer.h"
#include "python/bindings.h"

namespace gantry::python {
namespace {

using text::Tokenizer;

std::string spelled(const Tokenizer& tokenizer, std::optional<std::int32_t> id) {
  return id ? std::string(tokenizer.token_text(*id)) : std::string();
}

py::object apply_chat_template(const Tokenizer& tokenizer, const py::object& messages, bool add_generation_prompt,
                               bool tokenize, const py::object& tools, const py::object& documents,
                               const py::kwargs& variables) {
  GANTRY_CHECK(!tokenizer.chat_template().empty(),
               "this model has no chat template; write the prompt as the model's page describes");
  const text::ChatContext context{.bos_token = spelled(tokenizer, tokenizer.bos_id()),
                                  .eos_token = spelled(tokenizer, tokenizer.eos_id()),
                                  .tools = python_to_json(tools, "tools"),
                                  .documents = python_to_json(documents, "documents"),
                                  .variables = python_to_json(variables, "variables of the template")};
  const std::string text = text::render_chat(tokenizer.chat_template(), python_to_json(messages, "messages"),
                                             add_generation_prompt, context);
  if (tokenize) return py::cast(tokenizer.encode(text));
  return to_str(text);
}

void bind_reading(py::class_<Tokenizer, std::shared_ptr<Tokenizer>>& cls) {
  cls.def(
      "encode",
      [](const Tokenizer& self, std::string_view text, bool add_special, bool parse_special) {
        const py::gil_scoped_release release;
        return self.encode(text, {.add_special = add_special, .parse_special = parse_special});
      },
      py::arg("text"), py::kw_only(), py::arg("add_special") = false, py::arg("parse_special") = true,
      "Token ids of a text.\n\n"
      "add_special adds what the model's tokeniser puts around a text (BOS, EOS, [CLS], ...). parse_special "
      "recognises\n"
      "special tokens that are written in the text; False encodes them as plain text, which is what untrusted text "
      "needs.\n"
      "bytes are taken as UTF-8; invalid bytes never fail.");
  cls.def(
      "decode",
      [](const Tokenizer& self, const py::object& ids, bool skip_special) {
        return to_str(self.decode(ids_from_python(ids), skip_special));
      },
      py::arg("ids"), py::kw_only(), py::arg("skip_special") = false,
      "Text of token ids: a list, a numpy array or a tensor of one sequence. Bytes that form no character become "
      "U+FFFD.\n"
      "InputError for an id outside the vocabulary.");
  cls.def(
      "apply_chat_template", apply_chat_template, py::arg("messages"), py::kw_only(),
      py::arg("add_generation_prompt") = true, py::arg("tokenize") = false, py::arg("tools") = py::none(),
      py::arg("documents") = py::none(),
      "The text of a conversation as the model was trained on it; with tokenize=True its token ids.\n\n"
      "messages is a list of {'role': ..., 'content': ...}. add_generation_prompt opens the assistant's turn. Further\n"
      "keywords are variables of the template, such as enable_thinking. InputError when the model has no template, "
      "the\n"
      "template refuses the messages, or they have another shape.");
}

void bind_vocabulary(py::class_<Tokenizer, std::shared_ptr<Tokenizer>>& cls) {
  cls.def(
      "token_text", [](const Tokenizer& self, std::int32_t id) { return to_str(self.token_text(id)); }, py::arg("id"),
      "The token as the vocabulary spells it, such as 'Ġthe'. InputError for an id outside the vocabulary.");
  cls.def(
      "token_bytes", [](const Tokenizer& self, std::int32_t id) { return py::bytes(self.token_bytes(id)); },
      py::arg("id"), "The bytes that the token stands for in the middle of a text.");
  cls.def("id_of", &Tokenizer::id_of, py::arg("token"), "The id of a token as the vocabulary spells it, or None.");
  cls.def("is_special", &Tokenizer::is_special, py::arg("id"), "Whether the token is a special one.");
  cls.def_property_readonly("vocab_size", &Tokenizer::vocab_size, "One more than the largest id.");
  cls.def("__len__", &Tokenizer::vocab_size);
  cls.def_property_readonly("bos_id", &Tokenizer::bos_id, "Id that begins a text, or None.");
  cls.def_property_readonly("eos_id", &Tokenizer::eos_id, "Id that ends a text, or None.");
  cls.def_property_readonly("pad_id", &Tokenizer::pad_id, "Id of padding, or None.");
  cls.def_property_readonly("unk_id", &Tokenizer::unk_id, "Id of unknown text, or None.");
  cls.def_property_readonly("stop_ids", &Tokenizer::stop_ids, "Every id that ends a generation.");
  cls.def_property_readonly(
      "chat_template", [](const Tokenizer& self) { return to_str(self.chat_template()); },
      "The model's Jinja chat template; '' when it has none.");
  cls.def(
      "save", [](const Tokenizer& self, const std::filesystem::path& path) { text::save_tokenizer(self, path); },
      py::arg("path"), py::call_guard<py::gil_scoped_release>(),
      "Writes tokenizer.json and tokenizer_config.json into a folder, which is made when missing.");
  cls.def("__repr__",
          [](const Tokenizer& self) { return fmt::format("<gantry.Tokenizer of {} tokens>", self.vocab_size()); });
}

}  // namespace

void bind_text(py::module_& module) {
  py::class_<Tokenizer, std::shared_ptr<Tokenizer>> cls(module, "Tokenizer",
                                                        "Text to token ids and back. Immutable; usable from several "
                                                        "threads at once. Made by gantry.load_tokenizer, or the\n"
                                                        "`tokenizer` of a model.");
  cls.attr("__module__") = "gantry";
  bind_reading(cls);
  bind_vocabulary(cls);
  module.def(
      "load_tokenizer",
      [](const std::filesystem::path& path) { return std::shared_ptr<Tokenizer>(text::load_tokenizer(path)); },
      py::arg("path"), py::call_guard<py::gil_scoped_release>(),
      "Reads the tokeniser of a model folder, a .gguf, tokenizer.json, .model or vocab.txt file. InputError names the "
      "file\n"
      "and the field that is wrong.");
}

}  // namespace gantry::python
