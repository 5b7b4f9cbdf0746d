#include "gantry/train/options.h"

#include <cmath>

#include "gantry/base/bytes.h"
#include "gantry/base/check.h"
#include "gantry/layers/memory_mode.h"
#include "gantry/train/schedule.h"

namespace gantry::train {
namespace {

constexpr std::int64_t kMostSequences = 1 << 20;

void at_least_one(const char* name, std::int64_t value) {
  GANTRY_CHECK(value > 0, "--{} is {}, expected at least 1", name, value);
}

void validate_batch(const TrainOptions& o) {
  at_least_one("accumulation", o.accumulation);
  if (o.global_batch) at_least_one("global-batch", *o.global_batch);
  GANTRY_CHECK(!o.global_batch || *o.global_batch <= kMostSequences, "--global-batch is {}, expected at most {}",
               *o.global_batch, kMostSequences);
  if (o.batch.is_auto()) {
    GANTRY_CHECK(!o.memory_budget.empty(),
                 "--batch auto needs --memory-budget, the most memory that the micro-batch it looks for may take");
    GANTRY_CHECK(o.accumulation == 1,
                 "--batch auto chooses the accumulation too, --accumulation {} leaves no choice; give the sequences of "
                 "a step as --global-batch",
                 o.accumulation);
    return;
  }
  const std::int64_t batch = o.batch.count();
  at_least_one("batch", batch);
  GANTRY_CHECK(batch <= kMostSequences / o.accumulation,
               "--batch {} and --accumulation {} make more than {} sequences a step", batch, o.accumulation,
               kMostSequences);
  if (!o.global_batch) return;
  GANTRY_CHECK(o.accumulation == 1 || batch * o.accumulation == *o.global_batch,
               "--batch {} and --accumulation {} make {} sequences a step, --global-batch is {}; leave one of them out",
               batch, o.accumulation, batch * o.accumulation, *o.global_batch);
  GANTRY_CHECK(batch <= *o.global_batch, "--batch is {}, more than the {} sequences of a step (--global-batch)", batch,
               *o.global_batch);
}

void validate_memory(const TrainOptions& o) {
  if (o.memory_mode != "auto") spec::parse_memory_mode(o.memory_mode);
  if (o.memory_budget.empty()) return;
  base::parse_bytes(o.memory_budget, "--memory-budget");
  GANTRY_CHECK(o.memory_mode == "auto" || o.batch.is_auto(),
               "--memory-budget chooses the modes, --memory-mode {} leaves no choice; with --batch auto it chooses the "
               "micro-batch",
               o.memory_mode);
}

}  // namespace

void validate(const TrainOptions& o) {
  GANTRY_CHECK(!o.data.empty(), "no training data given; name text files, folders or JSONL files with --data");
  GANTRY_CHECK(!o.out.empty(), "no output folder given; name one with --out");
  at_least_one("steps", o.steps);
  at_least_one("eval-batches", o.eval_batches);
  at_least_one("keep-checkpoints", o.keep_checkpoints);
  validate_batch(o);
  validate_memory(o);
  GANTRY_CHECK(o.sequence_length >= 2, "--sequence-length is {}, expected at least 2", o.sequence_length);
  GANTRY_CHECK(o.warmup_steps >= 0 && o.eval_every >= 0 && o.save_every >= 0 && o.lora_rank >= 0,
               "--warmup-steps, --eval-every, --save-every and --lora-rank must not be negative");
  GANTRY_CHECK(o.dtype == "fp32" || o.dtype == "bf16", "--dtype is '{}', expected fp32 or bf16", o.dtype);
  GANTRY_CHECK(o.learning_rate > 0 && o.learning_rate < 1, "--learning-rate is {}, expected above 0 and below 1",
               o.learning_rate);
  GANTRY_CHECK(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1,
               "--beta1 {} and --beta2 {} must be in [0, 1)", o.beta1, o.beta2);
  GANTRY_CHECK(o.eps > 0 && std::isfinite(o.eps), "--eps is {}, expected above 0 and finite", o.eps);
  GANTRY_CHECK(o.weight_decay >= 0 && o.clip_norm >= 0 && std::isfinite(o.weight_decay) && std::isfinite(o.clip_norm),
               "--weight-decay {} and --clip-norm {} must be finite and not negative", o.weight_decay, o.clip_norm);
  GANTRY_CHECK(o.final_ratio >= 0 && o.final_ratio <= 1, "--final-ratio is {}, expected 0 to 1", o.final_ratio);
  GANTRY_CHECK(o.validation_fraction >= 0 && o.validation_fraction < 0.9,
               "--validation-fraction is {}, expected 0 to 0.9", o.validation_fraction);
  GANTRY_CHECK(!(o.from_scratch && o.lora_rank > 0), "--from-scratch and --lora-rank exclude each other");
  parse_decay(o.schedule);
}

std::int64_t sequences_per_step(const TrainOptions& o) {
  if (o.global_batch) return *o.global_batch;
  return o.batch.is_auto() ? TrainOptions{}.batch.count() : o.batch.count() * o.accumulation;
}

}  // namespace gantry::train
