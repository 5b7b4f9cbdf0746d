#include "gantry/simulate/timeline_blocks.h"

#include <algorithm>
#include <array>

namespace gantry::simulate {
namespace {

BlockKind block_kind(std::string_view name) {
  if (name == "forward") return BlockKind::kForward;
  if (name == "weight-gradient") return BlockKind::kWeightGradient;
  if (name == "optimizer") return BlockKind::kOptimizer;
  return BlockKind::kBackward;
}

BarKind bar_kind(const Event& event) {
  switch (event.channel) {
    case cost::Channel::kCopyIn: return BarKind::kCopyIn;
    case cost::Channel::kCopyOut: return BarKind::kCopyOut;
    default: return event.name == "p2p" ? BarKind::kTransfer : BarKind::kCollective;
  }
}

void add_block(std::vector<Block>& blocks, const Event& event) {
  const BlockKind kind = block_kind(event.name);
  const bool joins = !blocks.empty() && blocks.back().kind == kind && blocks.back().micro_batch == event.micro_batch &&
                     blocks.back().chunk == event.chunk;
  if (!joins) blocks.push_back({kind, event.micro_batch, event.chunk, event.start_s, event.end_s, 0});
  blocks.back().end_s = event.end_s;
  if (event.name == "recompute") blocks.back().recompute_s += event.end_s - event.start_s;
}

}  // namespace

std::vector<StageRow> stage_rows(const Outcome& outcome, double gap_s) {
  std::vector<StageRow> rows(outcome.busy_s.size());
  constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  // Index of the last bar of each kind.
  std::vector<std::array<std::size_t, 4>> last(rows.size(), {kNone, kNone, kNone, kNone});
  for (const Event& event : outcome.events) {
    const auto stage = static_cast<std::size_t>(event.stage);
    StageRow& row = rows[stage];
    if (event.channel == cost::Channel::kCompute) {
      add_block(row.blocks, event);
      continue;
    }
    const BarKind kind = bar_kind(event);
    std::size_t& before = last[stage][static_cast<std::size_t>(kind)];
    if (before != kNone && event.start_s - row.bars[before].end_s < gap_s) {
      row.bars[before].end_s = std::max(row.bars[before].end_s, event.end_s);
      continue;
    }
    before = row.bars.size();
    row.bars.push_back({kind, event.start_s, event.end_s});
  }
  return rows;
}

}  // namespace gantry::simulate
