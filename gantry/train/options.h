#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gantry/base/auto_count.h"

namespace gantry::train {

struct TrainOptions {
  std::vector<std::string> data;
  std::string out;
  std::int64_t steps = 0;
  bool resume = false;

  base::AutoCount batch = 4;
  std::int64_t sequence_length = 256;
  std::int64_t accumulation = 1;
  std::optional<std::int64_t> global_batch;
  std::string text_field = "text";
  double validation_fraction = 0.02;
  bool mask_documents = true;
  std::uint64_t seed = 0;

  std::string dtype = "bf16";
  bool from_scratch = false;
  std::int64_t lora_rank = 0;
  double lora_alpha = 16;

  std::string memory_mode = "auto";
  std::string memory_budget;

  double learning_rate = 1e-4;
  std::string schedule = "cosine";
  std::int64_t warmup_steps = 10;
  double final_ratio = 0.1;
  double weight_decay = 0.1;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double clip_norm = 1.0;

  std::int64_t eval_every = 0;
  std::int64_t eval_batches = 8;
  std::int64_t save_every = 0;
  std::int64_t keep_checkpoints = 2;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit.group("Run");
    visit("data", data, "text files, folders or JSONL files (several may follow)");
    visit("out", out, "folder of the run: checkpoints, metrics.jsonl and the trained model");
    visit("steps", steps, "optimiser steps");
    visit("resume", resume, "go on from the newest checkpoint in --out");
    visit.group("Data");
    visit("batch", batch, "sequences a micro-batch; auto: the size with the most samples/s within --memory-budget");
    visit("sequence_length", sequence_length, "tokens a sequence");
    visit("accumulation", accumulation, "micro-batches an optimiser step");
    visit("global_batch", global_batch,
          "sequences an optimiser step, instead of --accumulation; default: batch x accumulation, 4 with --batch auto");
    visit("text_field", text_field, "field of a JSONL record that holds the text");
    visit("validation_fraction", validation_fraction, "share of the data held out for validation");
    visit("mask_documents", mask_documents, "packed documents attend to themselves only");
    visit("seed", seed, "seed of data order, initial weights and dropout");
    visit.group("Model");
    visit("dtype", dtype, "fp32, or bf16 with exact fp32 master weights");
    visit("from_scratch", from_scratch, "start from random weights; MODEL gives the configuration and tokeniser");
    visit("lora_rank", lora_rank, "train low-rank updates of this rank instead of all weights; 0: all weights");
    visit("lora_alpha", lora_alpha, "scale of the low-rank updates (divided by the rank)");
    visit.group("Memory");
    visit(
        "memory_mode", memory_mode,
        "what layers keep for backward: auto, store, in-place, recompute, rerun (exact, fewer bytes in this order) or "
        "int8 (lossy)");
    visit("memory_budget", memory_budget,
          "most memory the process may hold, as 3GiB; auto then measures the modes and fits it in the least time");
    visit.group("Optimiser");
    visit("learning_rate", learning_rate, "peak learning rate");
    visit("schedule", schedule, "constant, linear or cosine");
    visit("warmup_steps", warmup_steps, "steps of linear warm-up");
    visit("final_ratio", final_ratio, "learning rate of the last step, as a share of the peak");
    visit("weight_decay", weight_decay, "decoupled decay of matrices");
    visit("beta1", beta1, "decay of the first moment");
    visit("beta2", beta2, "decay of the second moment");
    visit("eps", eps, "added to the denominator");
    visit("clip_norm", clip_norm, "global gradient norm above which gradients are scaled down; 0: never");
    visit.group("Records");
    visit("eval_every", eval_every, "steps between validations; 0: at the start and the end only");
    visit("eval_batches", eval_batches, "batches a validation: of --batch sequences, of a step's with --batch auto");
    visit("save_every", save_every, "steps between checkpoints; 0: at the end only");
    visit("keep_checkpoints", keep_checkpoints,
          "checkpoints to keep; older ones are removed after a new one is complete");
  }
};

/// InputError naming the option that is out of range, or those that exclude each other.
void validate(const TrainOptions& options);

/// Sequences of an optimiser step, whatever the micro-batch.
std::int64_t sequences_per_step(const TrainOptions& options);

}  // namespace gantry::train
