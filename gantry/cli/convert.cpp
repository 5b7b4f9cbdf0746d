// gantry convert MODEL OUT: GGUF or Hugging Face in, Hugging Face layout out.
#include <cstdio>

#include "gantry/base/progress.h"
#include "gantry/cli/verbs.h"
#include "gantry/models/load.h"
#include "gantry/tensor/dtype.h"

namespace gantry::cli {
namespace {

struct ConvertOptions {
  std::string dtype = "bf16";
  std::int64_t max_shard_mib = 5120;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit("dtype", dtype, "type of the written weights: fp32, bf16 or fp16");
    visit("max_shard_mib", max_shard_mib, "split the weights into files of at most this many MiB");
  }
};

}  // namespace

void add_convert(Command& program) {
  Command& verb = program.add_verb("convert", "GGUF or Hugging Face in, Hugging Face layout out");
  struct State {
    std::string model, out;
    ConvertOptions options;
  };
  auto state = std::make_shared<State>();
  verb.positional("MODEL", state->model, "model folder or .gguf file");
  verb.positional("OUT", state->out, "folder to write");
  verb.options(state->options);
  verb.on_run([state] {
    GANTRY_CHECK(state->options.max_shard_mib > 0, "--max-shard-mib is {}, expected at least 1",
                 state->options.max_shard_mib);
    GANTRY_CHECK(std::filesystem::weakly_canonical(state->model) != std::filesystem::weakly_canonical(state->out),
                 "{}: cannot convert a model onto itself; choose another output folder", state->out);
    const auto model = models::load_model(state->model, {.dtype = tensor::parse_dtype(state->options.dtype)});
    std::unique_ptr<text::Tokenizer> tokenizer;
    try {
      tokenizer = text::load_tokenizer(models::resolve_model_path(state->model));
    } catch (const base::InputError& error) {
      std::fprintf(stderr, "gantry: no tokeniser is written: %s\n", error.what());
    }
    models::save_model(*model, tokenizer.get(), state->out,
                       static_cast<std::uint64_t>(state->options.max_shard_mib) << 20);
    std::printf("%s: %s weights%s\n", state->out.c_str(), state->options.dtype.c_str(), tokenizer ? ", tokeniser" : "");
    return 0;
  });
}

}  // namespace gantry::cli
