#pragma once
// The order in which a stage runs its forwards and backwards.
#include <vector>

#include "gantry/plan/types.h"

namespace gantry::simulate {

struct Pass {
  bool backward = false;
  int micro_batch = 0;
  int chunk = 0;
};

/// Every forward and backward of `stage`. 1F1B and ZB-H1: min(S - 1 - stage, G) forwards, then forward and backward in
/// turn. Interleaved: micro-batches in groups of S, a group through all chunks before the next, backwards with chunks
/// reversed; 2 (S - 1 - stage) + (chunks - 1) S forwards first (Megatron-LM). S divides G there.
std::vector<Pass> pass_order(plan::Schedule schedule, int stages, int stage, int chunks, int accumulation);

}  // namespace gantry::simulate
