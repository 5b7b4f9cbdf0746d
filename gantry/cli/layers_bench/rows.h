#pragma once
// The groups of rows of `gantry bench layers`; each prints those that were asked for.
#include "gantry/cli/layers_bench/suite.h"

namespace gantry::cli::layers_bench {

/// gelu_fwd_bwd and layernorm_fwd_bwd, fp32 and bf16: operators that keep their output against eager PyTorch's.
void operator_rows(const Bench& bench);

/// flash_dropout_fwd_bwd_{512,2048} and flash_fwd_bwd_vs_sdpa: attention against PyTorch's.
void attention_rows(const Bench& bench);

/// linear_ce_memory and linear_ce_time: head and loss of 4,096 tokens, vocabulary 50,257.
void loss_rows(const Bench& bench);

/// saved_bytes_*: bytes a layer keeps for backward, and a table of every mode and baseline.
void saved_rows(const Bench& bench);

/// compile_rng: are gradients with dropout right, in Gantry's modes and under torch.compile with a memory budget?
void gradient_rows(const Bench& bench);

/// rerun_time_bert, _mlp and _attention: what running a block again costs in time.
void rerun_row(const Bench& bench);

/// max_batch_{bert,gpt2} and budget_throughput_{bert,gpt2}: the largest batch in a memory budget and its speed.
void budget_rows(const Bench& bench);

}  // namespace gantry::cli::layers_bench
