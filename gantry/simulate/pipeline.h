#pragma once
// Discrete-event execution of one training iteration of a plan: stages, micro-batches, the four channels of each
// stage's device under the interference model. Where plan/objective.h has a closed form, this has the schedule itself.
//
// What is simulated
// - Work of a stage is a list of cost::LayerStep. The channels of a step start together; while the set S of them is
//   busy, channel c advances at 1 / cost::slowdown(factors, S, c); the step's serial seconds follow (Mist, EuroSys '25,
//   section 5.3). Without noise a step lasts exactly cost::overlap_s + serial seconds.
// - Orders: 1F1B with S - 1 - i warm-up micro-batches on stage i; interleaved 1F1B over model chunks (Narayanan et al.,
//   SC '21, section 2.2; order and warm-up of Megatron-LM); ZB-H1 (Qi et al., ICLR '24, section 3): the gradients of
//   weights leave the backward and run where the stage would wait, with at most S micro-batches alive on every stage,
//   which is the peak of 1F1B's first stage (later stages hold more than under 1F1B).
// - Boundary tensors: a transfer takes p2p_s of the sender's time on its collective channel, right after the work that
//   made the tensor, and arrives at its end; the receiver does not stop. Each transfer is so charged once, as
//   in cost::CostModel::price. The interleaved order has transfers from the last stage to the first, which the closed
//   form leaves out.
// - What the first forward and the last backward add (d_s): stage 0 runs it in place. Later stages do the addition of
//   the forward (optimizer steps, gathering) at the start of the iteration, before their first micro-batch arrives, and
//   that of the backward (reductions) after their last gradient is sent (Mist, section 5.1). With ZB-H1 the latter
//   holds for stage 0 too, since gradients are complete after the last weight-gradient work only. Where the first
//   forward is shorter than the others, or the last backward is, it runs in place.
//
// Against the closed form of 1F1B, (G - 1) max t + sum t + max(0, d_i - sum_{j<i} t_j)
// - Equal for equal stages whose additions are stage 0's alone.
// - Without additions the simulated time is at most (G - 1) max t + sum t + (S - 1)(max F + max B - max t): a path
//   through the schedule has G - 1 passes beyond one of each stage. Where every stage splits its time alike into
//   forward and backward the last term vanishes and the closed form is an upper bound; else it may be exceeded.
// - Additions to a first forward hide behind the forwards of earlier stages alone, those to a last backward behind
// their
//   backwards alone, where the closed form lets both hide behind both: it is optimistic where one of them outgrows its
//   side.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/cost/stage.h"
#include "gantry/plan/types.h"

namespace gantry::simulate {

/// One piece of work on one channel.
struct Event {
  int stage = 0;
  int micro_batch = 0;  ///< -1: work of the whole iteration
  int chunk = 0;        ///< model chunk, interleaved schedule
  cost::Channel channel = cost::Channel::kCompute;
  /// "forward", "backward", "recompute", "weight-gradient", "optimizer"; "all-gather", "gather-reduce",
  /// "tensor-parallel", "p2p"; "copy-in", "copy-out". A static string.
  std::string_view name;
  int layer = -1;  ///< within the stage; -1: none
  double start_s = 0;
  double end_s = 0;
};

struct SimulationOptions {
  bool record = true;        ///< keep the events (a trace)
  double noise = 0;          ///< standard deviation of the logarithm of factors with mean 1 on every piece of work
  int straggler_stage = -1;  ///< its work takes `straggler_factor` times as long, transfers included
  double straggler_factor = 1;
  std::uint64_t seed = 1;  ///< of the noise; draws do not depend on the order of execution
};

struct Outcome {
  double iteration_s = 0;
  std::vector<double> busy_s;          ///< work on the compute channel, by stage
  std::vector<double> bubble_s;        ///< time in which none of the stage's channels works, by stage
  std::vector<double> peak_in_flight;  ///< micro-batches (of all chunks) whose activations were alive at once, by stage
  std::vector<Event> events;           ///< by start; empty unless recorded
};

/// One iteration on phases of each stage (cost::CostModel::phases). InputError: no stages, accumulation < 1, chunks
/// other than 1 unless interleaved, an accumulation that the stages do not divide where interleaved, negative or
/// infinite seconds, options out of range, more work than memory should hold.
Outcome run(const std::vector<cost::StagePhases>& stages, plan::Schedule schedule, int chunks, int accumulation,
            const SimulationOptions& options = {});
/// The same from a plan.
Outcome run(const plan::TrainPlan& plan, const cost::CostModel& model, const SimulationOptions& options = {});
/// Seconds of the iteration alone; plan::Arbiter.
double iteration_s(const plan::TrainPlan& plan, const cost::CostModel& model);

/// Chrome/Perfetto trace-event JSON: a process a stage, a thread a channel, times in microseconds to the nanosecond.
std::string trace_json(const Outcome& outcome);
/// A timeline as SVG: a band a stage with forward and backward of each micro-batch, other channels as thin rows. What
/// does not fit readably is cut out of the middle of the iteration; the drawing says so.
std::string timeline_svg(const Outcome& outcome, const std::string& title);

}  // namespace gantry::simulate
