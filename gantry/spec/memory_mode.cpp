#include "gantry/spec/memory_mode.h"

#include "gantry/base/check.h"

namespace gantry::spec {

std::string_view memory_mode_name(MemoryMode mode) {
  switch (mode) {
    case MemoryMode::kStore: return "store";
    case MemoryMode::kInPlace: return "in-place";
    case MemoryMode::kRecompute: return "recompute";
    case MemoryMode::kRerun: return "rerun";
    case MemoryMode::kInt8: return "int8";
  }
  GANTRY_UNREACHABLE();
}

MemoryMode parse_memory_mode(std::string_view name) {
  for (const MemoryMode mode : kMemoryModes) {
    if (memory_mode_name(mode) == name) return mode;
  }
  base::fail_input("memory mode '{}' is none of store, in-place, recompute, rerun and int8", name);
}

std::string describe(const LayerMemory& memory) {
  const auto name = [](MemoryMode mode) { return std::string(memory_mode_name(mode)); };
  if (memory.attention == memory.mlp && memory.mlp == memory.norm) return name(memory.mlp);
  return "attention=" + name(memory.attention) + " mlp=" + name(memory.mlp) + " norm=" + name(memory.norm);
}

}  // namespace gantry::spec
