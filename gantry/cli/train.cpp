// gantry train MODEL --data PATH... --steps N --out DIR
#include <cstdio>

#include "gantry/base/progress.h"
#include "gantry/cli/verbs.h"
#include "gantry/train/trainer.h"

namespace gantry::cli {

void add_train(Command& program) {
  Command& verb = program.add_verb("train", "Fine-tune a model, or train one from scratch, on text");
  struct State {
    std::string model;
    bool json = false;
    train::TrainOptions options;
  };
  auto state = std::make_shared<State>();
  verb.positional("MODEL", state->model, "model folder or .gguf file");
  verb.options(state->options);
  verb.flag("json", state->json, "print the result as one JSON object");
  verb.on_run([state] {
    const train::TrainResult result = train::train(state->model, state->options, GANTRY_VERSION);
    if (state->json) {
      base::OrderedJson json;
      json["steps"] = result.steps;
      json["first_loss"] = result.first_loss;
      json["final_loss"] = result.final_loss;
      json["validation_before"] = result.validation_before;
      json["validation_after"] = result.validation_after;
      json["tokens_per_s"] = result.tokens_per_s;
      json["peak_memory_bytes"] = result.peak_memory_bytes;
      json["micro_batch"] = result.micro_batch;
      json["accumulation"] = result.accumulation;
      if (!result.micro_batches.is_null()) json["micro_batches"] = result.micro_batches;
      json["out"] = state->options.out;
      std::printf("%s\n", json.dump().c_str());
    } else {
      std::printf("%ld steps, loss %.4f -> %.4f", result.steps, result.first_loss, result.final_loss);
      if (result.validation_after > 0) {
        std::printf(", validation perplexity %.3f -> %.3f", result.validation_before, result.validation_after);
      }
      std::printf(", %.0f tokens/s, peak memory %s\nmodel and metrics are in %s\n", result.tokens_per_s,
                  base::format_bytes(result.peak_memory_bytes).c_str(), state->options.out.c_str());
    }
    if (result.interrupted) {
      throw base::Interrupted(
          fmt::format("interrupted after step {}; the same command with --resume goes on from there", result.steps));
    }
    return 0;
  });
}

}  // namespace gantry::cli
