#pragma once
// The layers that the suite measures, and their baselines as processes.
#include <memory>
#include <string>

#include "gantry/base/json.h"
#include "gantry/cli/bench_server.h"
#include "gantry/cli/layers_bench/suite.h"
#include "gantry/layers/memory_mode.h"
#include "gantry/spec/config.h"

namespace gantry::cli::layers_bench {

/// Layers of "bert" (BERT-large), "gpt2" (GPT-2 medium) or "llama" (hidden 2,048, 32 query and 8 key heads), the same
/// as in bench/baselines/layers_blocks.py; `dropout` everywhere but in Llama, which has none. InputError for another
/// name.
spec::ModelConfig layer_config(const std::string& family, std::int64_t layers, double dropout);

/// The same mode for all three modules of a layer.
layers::LayerMemory uniform(layers::MemoryMode mode);

/// What an arm of Gantry keeps: a memory mode for everything, or "rerun-mlp" or "rerun-attention", which run that block
/// again and recompute the rest. InputError for another name.
layers::LayerMemory arm_memory(const std::string& arm);

/// bench/baselines/NAME with its settings, to which the number of threads is added.
std::unique_ptr<BenchServer> python_server(const Bench& bench, const std::string& script, base::OrderedJson settings);

}  // namespace gantry::cli::layers_bench
