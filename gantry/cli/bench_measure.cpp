#include "gantry/cli/bench_measure.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "gantry/base/process.h"
#include "gantry/base/timer.h"
#include "gantry/cli/bench_server.h"
#include "gantry/kernels/stream/stream.h"
#include "gantry/models/generate.h"
#include "gantry/models/load.h"
#include "gantry/tensor/dtype.h"
#include "gantry/tensor/huge_pages.h"
#include "gantry/train/step.h"

namespace gantry::cli {
namespace {

at::Tensor random_ids(std::int64_t rows, std::int64_t columns, std::int64_t vocab, std::uint64_t seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randint(vocab, {rows, columns}, generator, at::TensorOptions().dtype(at::kLong));
}

// Forward, backward, clipping and AdamW on random ids, as bench/baselines/train_step.py does.
void serve_train(const std::string& path, const MeasureOptions& options) {
  models::LoadOptions load;
  const auto model = models::load_model(path, load);
  train::TrainOptions train_options;
  train_options.dtype = options.dtype;
  train_options.steps = 1000;
  train_options.schedule = "constant";
  train_options.learning_rate = 1e-5;
  train_options.warmup_steps = 0;
  train::StepRunner runner(*model, train_options);
  model->train();
  const at::Tensor ids = random_ids(options.batch, options.sequence_length, model->config().vocab_size, 0);
  train::TrainBatch batch;
  batch.inputs.ids = ids;
  batch.labels = at::cat({ids.narrow(1, 1, ids.size(1) - 1), at::full({ids.size(0), 1}, -100, ids.options())}, 1);
  batch.counted = ids.size(0) * (ids.size(1) - 1);
  batch.tokens = ids.numel();
  std::int64_t step = 0;
  runner.step({batch}, step++);
  base::reset_peak_memory();
  serve_measurements({{"dtype", options.dtype}}, [&] {
    const base::Timer timer;
    const train::StepReport report = runner.step({batch}, step++);
    const double seconds = timer.seconds();
    return base::OrderedJson{{"seconds", seconds},
                             {"tokens_per_s", static_cast<double>(report.tokens) / seconds},
                             {"loss", report.loss},
                             {"peak_rss_bytes", base::peak_resident_bytes()}};
  });
}

std::int64_t weight_bytes(const models::LanguageModel& model) {
  std::int64_t bytes = 0;
  for (const auto& parameter : model.parameters()) bytes += static_cast<std::int64_t>(parameter.nbytes());
  return bytes;
}

// Greedy decoding of one stream after a short prompt; the prompt and the first token are not counted.
void serve_decode(const std::string& path, const MeasureOptions& options) {
  const auto model = models::load_model(path, {.dtype = tensor::parse_dtype(options.dtype), .resident = true});
  const at::Tensor prompt_ids = random_ids(1, 16, model->config().vocab_size, 0);
  std::vector<std::int32_t> prompt;
  for (std::int64_t i = 0; i < prompt_ids.numel(); ++i) {
    prompt.push_back(static_cast<std::int32_t>(prompt_ids[0][i].item<std::int64_t>()));
  }
  const models::GenerateOptions generate{.max_tokens = options.tokens, .ignore_eos = true};
  models::generate_ids(*model, prompt, generate);
  serve_measurements({{"dtype", options.dtype}, {"weight_bytes", weight_bytes(*model)}}, [&] {
    const models::Generation result = models::generate_ids(*model, prompt, generate);
    return base::OrderedJson{{"tokens_per_s", static_cast<double>(options.tokens - 1) / result.decode_s},
                             {"seconds", result.decode_s},
                             {"tokens", static_cast<std::int64_t>(result.ids.size()) - 1}};
  });
}

// Reading a large array once, on the same kind of memory and with the threads that the engine uses: what a decoder
// bound by memory could reach.
void serve_bandwidth() {
  const at::Tensor data = tensor::copy_to_huge_pages({at::ones({std::int64_t{64} << 20})})[0];
  serve_measurements({}, [&] {
    const base::Timer timer;
    const double sum = kernels::stream_sum(data);
    const double seconds = timer.seconds();
    return base::OrderedJson{{"bytes_per_s", static_cast<double>(data.nbytes()) / seconds}, {"sum", sum}};
  });
}

}  // namespace

void check_measure(const MeasureOptions& options) {
  const auto at_least = [](const char* option, std::int64_t value, std::int64_t least) {
    GANTRY_CHECK(value >= least && value <= 1 << 20, "{} is {}, expected {} to {}", option, value, least, 1 << 20);
  };
  at_least("--batch", options.batch, 1);
  at_least("--sequence-length", options.sequence_length, 2);
  at_least("--tokens", options.tokens, 2);
  at_least("--threads", options.threads, 1);
}

void prepare_models(const std::string& gguf, const std::string& dir) {
  std::unique_ptr<text::Tokenizer> tokenizer;
  for (const char* dtype : {"bf16", "fp32"}) {
    const auto out = std::filesystem::path(dir) / dtype;
    if (std::filesystem::exists(out / "config.json")) continue;
    if (tokenizer == nullptr) tokenizer = text::load_tokenizer(gguf);
    const auto model = models::load_model(gguf, {.dtype = tensor::parse_dtype(dtype)});
    models::save_model(*model, tokenizer.get(), out);
  }
}

void serve_measure(const std::string& model, const MeasureOptions& options) {
  at::set_num_threads(static_cast<int>(options.threads));
  if (options.measure == "train") return serve_train(model, options);
  if (options.measure == "decode") return serve_decode(model, options);
  if (options.measure == "bandwidth") return serve_bandwidth();
  base::fail_input("--measure is '{}', expected train, decode or bandwidth", options.measure);
}

}  // namespace gantry::cli
