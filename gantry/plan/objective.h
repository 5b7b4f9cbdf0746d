#pragma once
// Schedules as parameters of the closed form: micro-batches in flight and the share of a stage's time that fills the
// pipeline.
#include "gantry/cost/stage_parts.h"
#include "gantry/plan/inter_stage.h"
#include "gantry/plan/types.h"

namespace gantry::plan {

/// Micro-batches (of the whole stage) alive before a stage's first backward, the running one not counted. 1F1B: the
/// stages after it. ZB-H1: those of the first stage, on every stage (Qi et al., ICLR '24, section 3). Interleaved over
/// v chunks (Megatron-LM's schedule): (2 p + (v - 1) S + 1) / v - 1.
double warmup_micro_batches(Schedule schedule, int chunks, int stages, int stages_after, int accumulation);

/// 1F1B: fill 1. Interleaved: 1/v of the bubble (Narayanan et al., SC '21, section 2.2). ZB-H1: forward + backward - 2
/// W of each stage, W the gradients of weights (Qi et al., ICLR '24, table 1).
Objective schedule_objective(Schedule schedule, int chunks, int accumulation, double weight_gradient_share);

/// Share of a checkpointed block's seconds that only make gradients of weights: a micro-batch of one sequence, the
/// least over layer modes. A bound for other stages of that tensor-parallel degree; the simulator has each stage's own.
double weight_gradient_share(const cost::CostModel& model, int tensor_parallel);

}  // namespace gantry::plan
