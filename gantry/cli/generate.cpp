// gantry generate MODEL --prompt TEXT: one answer on the terminal, streaming.
#include "gantry/models/generate.h"

#include <unistd.h>

#include <cstdio>

#include "gantry/base/timer.h"
#include "gantry/cli/verbs.h"
#include "gantry/models/load.h"
#include "gantry/tensor/dtype.h"
#include "gantry/text/chat_template.h"

namespace gantry::cli {
namespace {

struct GenerateVerbOptions {
  std::string prompt;
  bool chat = false;
  std::optional<std::string> system;
  bool ids = false;
  bool json = false;
  std::optional<std::string> dtype;
  models::GenerateOptions generate;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit.group("Prompt");
    visit("prompt", prompt, "text to go on from, or with --chat the user's message");
    visit("chat", chat, "put the prompt through the model's chat template");
    visit("system", system, "system message for --chat");
    generate.visit_fields(visit);
    visit.group("Output");
    visit("ids", ids, "print token ids too");
    visit("json", json, "print one JSON object at the end instead of streaming text");
    visit("dtype", dtype, "fp32 or bf16; default: the file's own");
  }
};

std::vector<std::int32_t> encode_prompt(const text::Tokenizer& tokenizer, const GenerateVerbOptions& options) {
  if (!options.chat) return tokenizer.encode(options.prompt, {.add_special = true});
  GANTRY_CHECK(!tokenizer.chat_template().empty(), "this model has no chat template; leave out --chat");
  base::OrderedJson messages = base::OrderedJson::array();
  if (options.system) messages.push_back({{"role", "system"}, {"content", *options.system}});
  messages.push_back({{"role", "user"}, {"content", options.prompt}});
  const auto spelled = [&](std::optional<std::int32_t> id) {
    return id ? std::string(tokenizer.token_text(*id)) : std::string();
  };
  const text::ChatContext context{.bos_token = spelled(tokenizer.bos_id()), .eos_token = spelled(tokenizer.eos_id())};
  return tokenizer.encode(text::render_chat(tokenizer.chat_template(), messages, true, context));
}

void print_json(const std::vector<std::int32_t>& prompt, const models::Generation& result, double load_s) {
  base::OrderedJson json;
  json["text"] = result.text;
  json["ids"] = result.ids;
  json["prompt_ids"] = prompt;
  json["finish_reason"] = result.finish_reason;
  json["load_s"] = load_s;
  json["prefill_s"] = result.prefill_s;
  json["decode_s"] = result.decode_s;
  json["tokens_per_s"] = result.decode_s > 0 ? static_cast<double>(result.ids.size() - 1) / result.decode_s : 0.0;
  std::printf("%s\n", json.dump(-1, ' ', false, base::Json::error_handler_t::replace).c_str());
}

int run_generate(const std::string& path, const GenerateVerbOptions& options) {
  models::validate(options.generate.sampling);
  const base::Timer timer;
  models::LoadOptions load{.resident = true};
  if (options.dtype) load.dtype = tensor::parse_dtype(*options.dtype);
  const auto model = models::load_model(path, load);
  const auto tokenizer = text::load_tokenizer(models::resolve_model_path(path));
  const double load_s = timer.seconds();
  const auto prompt = encode_prompt(*tokenizer, options);
  GANTRY_CHECK(!prompt.empty(), "the prompt is empty; give one with --prompt");
  models::TextCallback show;
  if (!options.json) {
    show = [](std::string_view text) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      return std::fflush(stdout) == 0;
    };
  }
  const models::Generation result = models::generate(*model, *tokenizer, prompt, options.generate, show);
  if (options.json) {
    print_json(prompt, result, load_s);
  } else {
    std::printf("\n");
    if (options.ids) std::printf("%s\n", base::Json(result.ids).dump().c_str());
    if (::isatty(STDERR_FILENO) == 1) {
      std::fprintf(stderr, "[%zu tokens, first after %.2f s, then %.1f tokens/s, %s]\n", result.ids.size(),
                   load_s + result.prefill_s,
                   result.decode_s > 0 ? static_cast<double>(result.ids.size() - 1) / result.decode_s : 0.0,
                   result.finish_reason.c_str());
    }
  }
  if (result.finish_reason == "interrupted") throw base::Interrupted("interrupted");
  return 0;
}

}  // namespace

void add_generate(Command& program) {
  Command& verb = program.add_verb("generate", "Go on from a prompt, on the terminal");
  struct State {
    std::string model;
    GenerateVerbOptions options;
  };
  auto state = std::make_shared<State>();
  verb.positional("MODEL", state->model, "model folder or .gguf file");
  verb.options(state->options);
  verb.on_run([state] { return run_generate(state->model, state->options); });
}

}  // namespace gantry::cli
