// gantry eval MODEL --text FILE: perplexity.
#include <cstdio>

#include "gantry/base/file.h"
#include "gantry/base/interrupt.h"
#include "gantry/base/progress.h"
#include "gantry/base/timer.h"
#include "gantry/cli/verbs.h"
#include "gantry/models/load.h"
#include "gantry/models/perplexity.h"
#include "gantry/tensor/dtype.h"
#include "gantry/text/tokenizer.h"
#include "gantry/text/utf8.h"

namespace gantry::cli {
namespace {

struct EvalOptions {
  std::string text;
  std::int64_t window = 1024;
  std::int64_t max_windows = 0;
  std::int64_t batch = 1;
  std::optional<std::string> dtype;
  bool json = false;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit("text", text, "text file to measure perplexity on");
    visit("window", window, "tokens a window; positions restart in each");
    visit("max_windows", max_windows, "most windows to measure; 0: all");
    visit("batch", batch, "windows a forward pass");
    visit("dtype", dtype, "fp32 or bf16; default: the file's own");
    visit("json", json, "print one JSON object");
  }
};

int run_eval(const std::string& path, const EvalOptions& options) {
  GANTRY_CHECK(!options.text.empty(), "nothing to evaluate on; name a text file with --text");
  models::LoadOptions load;
  if (options.dtype) load.dtype = tensor::parse_dtype(*options.dtype);
  const auto model = models::load_model(path, load);
  const auto tokenizer = text::load_tokenizer(models::resolve_model_path(path));
  const std::string content = base::read_text_file(options.text);
  GANTRY_CHECK(text::is_valid_utf8(content), "{}: not UTF-8 text; a binary file, or another encoding to convert first",
               options.text);
  const auto ids = tokenizer->encode(content, {.parse_special = false});
  GANTRY_CHECK(ids.size() >= 2, "{}: {} tokens; perplexity needs at least 2", options.text, ids.size());
  GANTRY_CHECK(options.window >= 2, "--window is {}, expected at least 2", options.window);
  std::int64_t windows = std::max<std::int64_t>(1, static_cast<std::int64_t>(ids.size()) / options.window);
  if (options.max_windows > 0) windows = std::min(windows, options.max_windows);
  const base::Timer timer;
  base::Progress progress("perplexity", static_cast<std::uint64_t>(windows), "windows");
  const auto result = models::perplexity(
      *model, ids, {.window = options.window, .max_windows = options.max_windows, .batch = options.batch},
      [&](std::int64_t done) {
        progress.update(static_cast<std::uint64_t>(done));
        return !base::interrupted();
      });
  progress.finish();
  if (options.json) {
    base::OrderedJson json;
    json["perplexity"] = result.perplexity;
    json["tokens"] = result.tokens;
    json["windows"] = result.window_nll.size();
    json["window"] = options.window;
    json["seconds"] = timer.seconds();
    json["dtype"] = tensor::dtype_label(model->dtype());
    json["window_nll"] = result.window_nll;
    std::printf("%s\n", json.dump().c_str());
  } else {
    std::printf("perplexity %.4f over %ld tokens in %zu windows of %ld (%s, %.1f s)\n", result.perplexity,
                result.tokens, result.window_nll.size(), options.window,
                std::string(tensor::dtype_label(model->dtype())).c_str(), timer.seconds());
  }
  if (base::interrupted()) throw base::Interrupted("interrupted; the figure covers the windows done so far");
  return 0;
}

}  // namespace

void add_eval(Command& program) {
  Command& verb = program.add_verb("eval", "Perplexity of a model on a text");
  struct State {
    std::string model;
    EvalOptions options;
  };
  auto state = std::make_shared<State>();
  verb.positional("MODEL", state->model, "model folder or .gguf file");
  verb.options(state->options);
  verb.on_run([state] { return run_eval(state->model, state->options); });
}

}  // namespace gantry::cli
