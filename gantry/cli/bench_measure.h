#pragma once
// Gantry's own side of the foundation benchmark, each in a process of its own (see bench_server.h).
#include <cstdint>
#include <string>

namespace gantry::cli {

struct MeasureOptions {
  std::string measure;
  std::string dtype = "bf16";
  std::int64_t batch = 4;
  std::int64_t sequence_length = 256;
  std::int64_t tokens = 64;
  std::int64_t threads = 2;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit.group("Measurements, Gantry's and the baselines'");
    visit("batch", batch, "sequences a training step");
    visit("sequence_length", sequence_length, "tokens a sequence");
    visit("tokens", tokens, "tokens to decode a round; the first is not timed");
    visit("threads", threads, "threads of every engine");
    visit.group("Internal");
    visit("measure", measure, "serve one measurement on standard input and output: train, decode or bandwidth");
    visit("dtype", dtype, "fp32 or bf16");
  }
};

/// InputError naming the option that is out of range.
void check_measure(const MeasureOptions& options);

/// Writes DIR/bf16 and DIR/fp32 in Hugging Face layout from a GGUF file, where they are missing.
void prepare_models(const std::string& gguf, const std::string& dir);

/// Serves until the input ends.
void serve_measure(const std::string& model, const MeasureOptions& options);

}  // namespace gantry::cli
