#pragma once
// Events gathered into what a drawing can show: one block a pass, one bar for channel work without visible gaps.
#include <string_view>
#include <vector>

#include "gantry/simulate/pipeline.h"

namespace gantry::simulate {

enum class BlockKind : std::uint8_t { kForward, kBackward, kWeightGradient, kOptimizer };

/// The compute of one pass of a micro-batch through a stage (or a chunk of it).
struct Block {
  BlockKind kind = BlockKind::kForward;
  int micro_batch = 0;  ///< -1: none
  int chunk = 0;
  double start_s = 0;
  double end_s = 0;
  double recompute_s = 0;
};

enum class BarKind : std::uint8_t { kCollective, kTransfer, kCopyIn, kCopyOut };

/// Work on another channel than compute.
struct Bar {
  BarKind kind = BarKind::kCollective;
  double start_s = 0;
  double end_s = 0;
};

struct StageRow {
  std::vector<Block> blocks;
  std::vector<Bar> bars;
};

/// Rows by stage. Bars of one kind closer than `gap_s` become one.
std::vector<StageRow> stage_rows(const Outcome& outcome, double gap_s);

}  // namespace gantry::simulate
