#pragma once
// Architectures by name, for planning and demonstrations: no file is read, and no weights come with them.
//
// gpt-{1.3b,2.7b,7b,13b,22b} and llama-{...} are the ladder of the Mist paper (EuroSys '25, table 4): hidden sizes and
// layers as there, a vocabulary of 50,304, untied embeddings and no dropout. The GPT ones are GPT-2 blocks, whose
// linears have biases: 12 h^2 + 13 h elements a block, where the paper's code has 12 h^2 + 4 h (no linear biases), so
// 9 h more: 18,432 of 50,339,840 (0.04 %) for 1.3b. Learned positions of the GPT ladder reach 4,096, the paper's
// longest sequence; raise ModelConfig::max_positions for longer ones. Heads are GPT-3's: 128 wide, 80 for 2.7b, so that
// 8-way tensor parallelism divides all of them.
#include <string>
#include <string_view>
#include <vector>

#include "gantry/spec/config.h"

namespace gantry::spec {

/// Also llama3-8b, llama3-70b, bert-large, gpt2 and smollm2-135m as published. InputError lists the names.
ModelConfig named_model(std::string_view name);

/// In the order in which messages list them.
std::vector<std::string> named_models();

}  // namespace gantry::spec
