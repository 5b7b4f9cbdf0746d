#pragma once
// The layers' names for what they keep; the planner reads the same ones.
#include "gantry/spec/memory_mode.h"

namespace gantry::layers {

using spec::LayerMemory;
using spec::MemoryMode;

}  // namespace gantry::layers
