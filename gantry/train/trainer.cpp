#include "gantry/train/trainer.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "gantry/base/file.h"
#include "gantry/base/interrupt.h"
#include "gantry/base/log.h"
#include "gantry/base/options.h"
#include "gantry/base/process.h"
#include "gantry/base/progress.h"
#include "gantry/base/timer.h"
#include "gantry/kernels/cross_entropy/linear_cross_entropy.h"
#include "gantry/models/load.h"
#include "gantry/spec/tensor_table.h"
#include "gantry/tensor/dtype.h"
#include "gantry/train/checkpoint.h"
#include "gantry/train/data.h"
#include "gantry/train/lora.h"
#include "gantry/train/memory_choice.h"
#include "gantry/train/memory_plan.h"
#include "gantry/train/metrics.h"
#include "gantry/train/schedule.h"
#include "gantry/train/step.h"

namespace gantry::train {
namespace {

namespace fs = std::filesystem;

// Options that a resumed run must share with the one it goes on from: they decide what every step computes.
constexpr const char* kFixedOptions[] = {
    "data",           "batch",    "sequence_length", "accumulation", "text_field",   "validation_fraction",
    "mask_documents", "seed",     "dtype",           "from_scratch", "lora_rank",    "lora_alpha",
    "learning_rate",  "schedule", "warmup_steps",    "final_ratio",  "weight_decay", "beta1",
    "beta2",          "eps",      "clip_norm",       "steps",        "global_batch"};

class Run {
 public:
  Run(std::string model_path, const TrainOptions& options, std::string version)
      : model_path_(std::move(model_path)), options_(options), version_(std::move(version)), out_(options.out) {
    validate(options_);
    find_resume_point();
    split();
    load();
    base::make_directories(out_);
    data_ = std::make_unique<TrainData>(options_, *tokenizer_, model_->config(), out_ / "tokens");
    if (resume_from_)
      restore();
    else
      choose_memory();
    metrics_ = std::make_unique<MetricsWriter>(out_ / "metrics.jsonl", resume_from_ ? step_ : -1);
  }

  TrainResult run() {
    base::log_info("{}", data_->description());
    write_start();
    result_.validation_before = validate_now();
    base::Progress progress("training", static_cast<std::uint64_t>(options_.steps), "steps",
                            static_cast<std::uint64_t>(step_));
    const std::int64_t first = step_;
    while (step_ < options_.steps && !base::interrupted()) {
      one_step(step_ == first, progress);
      const bool last = step_ == options_.steps;
      if (!last && options_.eval_every > 0 && step_ % options_.eval_every == 0) validate_now();
      if (!last && options_.save_every > 0 && step_ % options_.save_every == 0) save_checkpoint();
    }
    progress.finish();
    finish();
    return result_;
  }

 private:
  void find_resume_point() {
    const auto checkpoints = list_checkpoints(out_);
    if (options_.resume) {
      if (!checkpoints.empty()) resume_from_ = checkpoints.front().second;
      return;
    }
    GANTRY_CHECK(checkpoints.empty() && !fs::exists(out_ / "metrics.jsonl"),
                 "{}: holds a run already; add --resume to go on with it, or choose another --out", out_.string());
  }

  // Micro-batches of a step, as far as they are known before measuring.
  void split() {
    const std::int64_t sequences = sequences_per_step(options_);
    if (!options_.batch.is_auto()) {
      set_micro_batch(std::min(options_.batch.count(), sequences));
    } else if (resume_from_) {
      // The size that the run so far took, not another measurement's: sums in another order round differently.
      const fs::path file = *resume_from_ / "trainer.json";
      const base::Json state = base::read_json_file(file);
      const auto recorded = base::json_get_or<std::int64_t>(state, "micro_batch", 1, file.string());
      GANTRY_CHECK(recorded >= 1, "{}: micro_batch is {}, expected at least 1", file.string(), recorded);
      set_micro_batch(std::min(recorded, sequences));
      result_.micro_batches = base::json_get_or<base::Json>(state, "micro_batches", {}, file.string());
    } else {
      result_.accumulation = sequences;
    }
  }

  void set_micro_batch(std::int64_t size) {
    result_.accumulation = static_cast<std::int64_t>(split_step(sequences_per_step(options_), size).size());
    result_.micro_batch = size;
  }

  void load() {
    tokenizer_ = text::load_tokenizer(models::resolve_model_path(model_path_));
    const bool lora = options_.lora_rank > 0;
    const at::ScalarType dtype = tensor::parse_dtype(options_.dtype);
    if (options_.from_scratch) {
      model_ = models::make_model(models::load_config(model_path_));
      models::initialize_parameters(*model_, options_.seed);
    } else if (lora) {
      model_ = models::load_model(model_path_, {.dtype = dtype});
    } else {
      // A quantised file's values are kept in fp32 masters, not rounded to bf16 first.
      const bool gguf = models::resolve_model_path(model_path_).extension() == ".gguf";
      models::LoadOptions load;
      if (gguf) load.dtype = at::kFloat;
      model_ = models::load_model(model_path_, load);
    }
    GANTRY_CHECK(tokenizer_->vocab_size() <= model_->config().vocab_size,
                 "{}: the tokeniser has {} tokens, the model only {}", model_path_, tokenizer_->vocab_size(),
                 model_->config().vocab_size);
    GANTRY_CHECK(options_.sequence_length <= model_->config().max_positions,
                 "--sequence-length is {}, the model has {} positions", options_.sequence_length,
                 model_->config().max_positions);
    at::manual_seed(options_.seed);
    TrainOptions split = options_;
    split.accumulation = result_.accumulation;
    step_runner_ = std::make_unique<StepRunner>(*model_, split);
    model_->train();
  }

  void restore() {
    // The options first: a changed --dtype or --lora-rank is then told as such, not as tensors that don't fit.
    const base::Json state = base::read_json_file(*resume_from_ / "trainer.json");
    const std::string source = (*resume_from_ / "trainer.json").string();
    const base::Json saved = base::json_get<base::Json>(state, "options", source);
    const base::OrderedJson ours = base::options_to_json(options_);
    for (const char* name : kFixedOptions) {
      const base::Json mine = ours.contains(name) ? base::Json(ours[name]) : base::Json();
      const base::Json theirs = saved.contains(name) ? saved[name] : base::Json();
      GANTRY_CHECK(mine == theirs, "{}: the run was started with {} = {}, now it is {}; a resumed run must keep it",
                   source, name, theirs.dump(), mine.dump());
    }
    const auto threads = base::json_get<int>(state, "threads", source);
    if (threads != at::get_num_threads()) {
      base::log_warn("resuming with {} threads a run started with {}: results agree up to rounding only",
                     at::get_num_threads(), threads);
    }
    read_checkpoint(*resume_from_, step_runner_->parameters(), step_runner_->optimizer());
    // Modes round differently; those of the run so far, not another measurement's.
    model_->set_memory(memory_from_json(base::json_get<base::Json>(state, "memory_modes", source), source));
    step_ = base::json_get<std::int64_t>(state, "step", source);
    data_->seek(base::json_get<base::Json>(state, "data_position", source));
    base::log_info("resuming from {}", resume_from_->string());
  }

  void choose_memory() {
    MemoryChoice choice(*model_, *step_runner_, *data_, options_);
    if (!options_.batch.is_auto()) return choice.choose_modes(result_.micro_batch);
    const MicroBatchPlan plan = choice.choose_micro_batch();
    set_micro_batch(plan.best().micro_batch);
    result_.micro_batches = micro_batches_to_json(plan);
  }

  void record_split(base::OrderedJson& record) const {
    record["micro_batch"] = result_.micro_batch;
    record["accumulation"] = result_.accumulation;
    if (!result_.micro_batches.is_null()) record["micro_batches"] = result_.micro_batches;
  }

  void write_start() {
    base::OrderedJson record;
    record["event"] = resume_from_ ? "resume" : "start";
    record["time"] = base::utc_time();
    record["step"] = step_;
    record["model"] = model_path_;
    record["parameters"] = spec::parameter_count(model_->config());
    record["trained_parameters"] = step_runner_->parameters().size();
    record["memory_modes"] = memory_to_json(model_->memory());
    record_split(record);
    record["options"] = base::options_to_json(options_);
    record["machine"] = {
        {"cpu", base::cpu_name()}, {"threads", at::get_num_threads()}, {"memory_bytes", base::total_memory_bytes()}};
    record["version"] = version_;
    metrics_->write(record);
  }

  void one_step(bool first, base::Progress& progress) {
    const base::Timer timer;
    const StepReport report = step_runner_->step(data_->next(result_.micro_batch), step_);
    if (!report.applied) fail_diverged(report);
    ++step_;
    const double seconds = timer.seconds();
    rates_.push_back(static_cast<double>(report.tokens) / seconds);
    if (first) result_.first_loss = report.loss;
    result_.final_loss = report.loss;
    base::OrderedJson record;
    record["event"] = "step";
    record["step"] = step_;
    record["loss"] = report.loss;
    record["learning_rate"] = report.learning_rate;
    record["grad_norm"] = report.gradient_norm;
    record["tokens"] = report.tokens;
    record["tokens_per_s"] = rates_.back();
    record["step_s"] = seconds;
    record["memory_bytes"] = base::resident_bytes();
    record["time_s"] = clock_.seconds();
    metrics_->write(record);
    progress.update(static_cast<std::uint64_t>(step_),
                    fmt::format("loss {:.4f}, {:.0f} tokens/s", report.loss, rates_.back()));
  }

  [[noreturn]] void fail_diverged(const StepReport& report) {
    const auto checkpoints = list_checkpoints(out_);
    base::OrderedJson record;
    record["event"] = "end";
    record["step"] = step_;
    record["reason"] = "diverged";
    metrics_->write(record);
    base::fail(
        "step {}: the loss is {} and the gradient norm {}; training diverged and the step was not applied. {}. "
        "Lower --learning-rate, raise --warmup-steps, or use --dtype fp32",
        step_ + 1, report.loss, report.gradient_norm,
        checkpoints.empty() ? "No checkpoint was written yet"
                            : "The newest checkpoint is " + checkpoints.front().second.string());
  }

  double validate_now() {
    const auto batches = data_->validation(options_.eval_batches, result_.micro_batch);
    if (batches.empty()) return 0;
    model_->eval();
    const at::NoGradGuard no_grad;
    double nll = 0;
    std::int64_t counted = 0;
    for (const TrainBatch& batch : batches) {
      const at::Tensor hidden = model_->hidden(batch.inputs);
      nll += kernels::linear_cross_entropy_losses(hidden, model_->head_weight(), model_->head_bias(), batch.labels)
                 .sum()
                 .item<double>();
      counted += batch.counted;
    }
    model_->train();
    const double loss = nll / static_cast<double>(std::max<std::int64_t>(1, counted));
    base::OrderedJson record;
    record["event"] = "eval";
    record["step"] = step_;
    record["split"] = "validation";
    record["loss"] = loss;
    record["perplexity"] = std::exp(loss);
    record["tokens"] = counted;
    metrics_->write(record);
    return std::exp(loss);
  }

  void save_checkpoint() {
    base::OrderedJson state;
    state["step"] = step_;
    state["data_position"] = data_->position();
    state["options"] = base::options_to_json(options_);
    state["threads"] = at::get_num_threads();
    state["memory_modes"] = memory_to_json(model_->memory());
    record_split(state);
    state["version"] = version_;
    const fs::path path =
        write_checkpoint(out_, step_, options_.keep_checkpoints, step_runner_->parameters(), step_runner_->optimizer(),
                         state, [&](const fs::path& dir) { write_model(dir); });
    base::OrderedJson record;
    record["event"] = "checkpoint";
    record["step"] = step_;
    record["path"] = path.string();
    metrics_->write(record);
  }

  void write_model(const fs::path& dir) {
    if (options_.lora_rank > 0) {
      save_adapter(*model_, {.rank = options_.lora_rank, .alpha = options_.lora_alpha}, model_path_, dir);
    } else {
      models::save_model(*model_, tokenizer_.get(), dir);
    }
  }

  void finish() {
    result_.steps = step_;
    result_.interrupted = step_ < options_.steps;
    // A resumed run that had done all its steps has its checkpoint already.
    if (!rates_.empty()) save_checkpoint();
    if (!result_.interrupted) {
      result_.validation_after = validate_now();
      if (options_.lora_rank > 0) {
        write_model(out_ / "adapter");
        make_writable(*model_);
        merge_lora(*model_);
      }
      models::save_model(*model_, tokenizer_.get(), out_);
    }
    std::sort(rates_.begin(), rates_.end());
    if (!rates_.empty()) result_.tokens_per_s = rates_[rates_.size() / 2];
    result_.peak_memory_bytes = base::peak_resident_bytes();
    base::OrderedJson record;
    record["event"] = "end";
    record["step"] = step_;
    record["reason"] = result_.interrupted ? "interrupted" : "done";
    record["peak_memory_bytes"] = result_.peak_memory_bytes;
    metrics_->write(record);
  }

  std::string model_path_;
  TrainOptions options_;
  std::string version_;
  fs::path out_;
  std::optional<fs::path> resume_from_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  std::shared_ptr<models::LanguageModel> model_;
  std::unique_ptr<StepRunner> step_runner_;
  std::unique_ptr<TrainData> data_;
  std::unique_ptr<MetricsWriter> metrics_;
  base::Timer clock_;
  std::int64_t step_ = 0;
  std::vector<double> rates_;
  TrainResult result_;
};

}  // namespace

TrainResult train(const std::string& model, const TrainOptions& options, const std::string& version) {
  return Run(model, options, version).run();
}

}  // namespace gantry::train
