#include "gantry/train/options.h"

#include <cmath>

#include "gantry/base/bytes.h"
#include "gantry/base/check.h"
#include "gantry/layers/memory_mode.h"
#include "gantry/train/schedule.h"

namespace gantry::train {

void validate(const TrainOptions& o) {
  GANTRY_CHECK(!o.data.empty(), "no training data given; name text files, folders or JSONL files with --data");
  GANTRY_CHECK(!o.out.empty(), "no output folder given; name one with --out");
  const auto positive = [](const char* name, std::int64_t value) {
    GANTRY_CHECK(value > 0, "--{} is {}, expected at least 1", name, value);
  };
  positive("steps", o.steps);
  positive("batch", o.batch);
  positive("accumulation", o.accumulation);
  positive("eval-batches", o.eval_batches);
  positive("keep-checkpoints", o.keep_checkpoints);
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
  if (o.memory_mode != "auto") spec::parse_memory_mode(o.memory_mode);
  if (!o.memory_budget.empty()) {
    base::parse_bytes(o.memory_budget, "--memory-budget");
    GANTRY_CHECK(o.memory_mode == "auto", "--memory-budget chooses the modes; --memory-mode {} leaves no choice",
                 o.memory_mode);
  }
  parse_decay(o.schedule);
}

}  // namespace gantry::train
