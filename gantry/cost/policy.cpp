#include "gantry/cost/policy.h"

#include "gantry/base/check.h"

namespace gantry::cost {

std::string_view layer_mode_name(LayerMode mode) {
  switch (mode) {
    case LayerMode::kStore: return "store";
    case LayerMode::kInPlace: return "in_place";
    case LayerMode::kRecompute: return "recompute";
    case LayerMode::kRerunMlp: return "rerun_mlp";
    case LayerMode::kRerun: return "rerun";
  }
  GANTRY_UNREACHABLE();
}

spec::LayerMemory layer_memory(LayerMode mode, bool flash_attention) {
  using enum spec::MemoryMode;
  const auto attention = [&](spec::MemoryMode without) { return flash_attention ? kRecompute : without; };
  switch (mode) {
    case LayerMode::kStore: return {attention(kStore), kStore, kStore};
    case LayerMode::kInPlace: return {attention(kInPlace), kInPlace, kInPlace};
    case LayerMode::kRecompute: return {attention(kStore), kRecompute, kInPlace};
    case LayerMode::kRerunMlp: return {attention(kStore), kRerun, kInPlace};
    case LayerMode::kRerun:
      GANTRY_CHECK(flash_attention, "layer mode rerun runs flash attention again; without it choose rerun_mlp");
      return {kRerun, kRerun, kInPlace};
  }
  GANTRY_UNREACHABLE();
}

}  // namespace gantry::cost
