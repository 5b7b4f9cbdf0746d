// config.json: any text is refused or gives a config whose table, graph, memory and rotary frequencies can be computed,
// and which survives being written and read again.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "gantry/base/check.h"
#include "gantry/spec/config.h"
#include "gantry/spec/memory.h"
#include "gantry/spec/operator_graph.h"
#include "gantry/spec/rope.h"

namespace {

void use(const gantry::spec::ModelConfig& config) {
  using namespace gantry::spec;
  const MemoryByPurpose memory = memory_summary(config, 2);
  if (memory.parameters != static_cast<std::uint64_t>(parameter_count(config))) std::abort();
  if (config.num_layers <= 64) {
    const OperatorGraph graph = operator_graph(config);
    if (!(graph.matrix_flops(graph.all()).evaluate({}) > 0)) std::abort();
  }
  if (config.family == Family::kLlama) {
    const auto frequencies = rope_frequencies(config, 2 * config.max_positions);
    if (frequencies.inverse.size() != static_cast<std::size_t>(config.head_dim / 2)) std::abort();
    for (const float value : frequencies.inverse) {
      if (!(value >= 0 && std::isfinite(value))) std::abort();
    }
  }
  if (config_from_hf_text(config_to_hf_text(config, "float32"), "again") != config) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  gantry::spec::ModelConfig config;
  try {
    config = gantry::spec::config_from_hf_text(text, "fuzz");
  } catch (const gantry::base::InputError&) {
    return 0;
  }
  use(config);  // an accepted config must not be refused any more
  return 0;
}
