#include "gantry/text/bpe_merger.h"

#include <algorithm>
#include <queue>

#include "gantry/base/check.h"

namespace gantry::text {
namespace {

// Up to here scanning all pairs beats a heap.
constexpr std::size_t kShortWord = 40;

struct Candidate {
  std::uint64_t merge;  // rank << 32 | result
  std::uint32_t left;
  std::uint32_t right;
  std::int32_t left_id;
  std::int32_t right_id;
  // std::priority_queue keeps the largest on top.
  bool operator<(const Candidate& other) const {
    const auto rank = merge >> 32;
    const auto other_rank = other.merge >> 32;
    return rank != other_rank ? rank > other_rank : left > other.left;
  }
};

struct Node {
  std::int32_t id;  // -1: merged into its left neighbour
  std::int32_t previous;
  std::int32_t next;
};

}  // namespace

BpeMerger::BpeMerger(const std::vector<BpeMerge>& merges, const std::vector<std::uint32_t>& ranks)
    : table_(merges.size()) {
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const BpeMerge& merge = merges[i];
    const std::uint64_t key = (static_cast<std::uint64_t>(merge.left) << 32) | static_cast<std::uint32_t>(merge.right);
    table_.insert(key, (std::uint64_t{ranks[i]} << 32) | static_cast<std::uint32_t>(merge.result));
  }
}

std::uint64_t BpeMerger::lookup(std::int32_t left, std::int32_t right) const {
  const auto* found = table_.find((static_cast<std::uint64_t>(left) << 32) | static_cast<std::uint32_t>(right));
  return found == nullptr ? kNoMerge : *found;
}

void BpeMerger::merge(std::vector<std::int32_t>& symbols) const {
  if (symbols.size() <= kShortWord)
    merge_short(symbols);
  else
    merge_long(symbols);
}

void BpeMerger::merge_short(std::vector<std::int32_t>& symbols) const {
  std::uint64_t merges[kShortWord];
  std::size_t count = symbols.size();
  for (std::size_t i = 0; i + 1 < count; ++i) merges[i] = lookup(symbols[i], symbols[i + 1]);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if ((merges[i] >> 32) < (merges[best] >> 32)) best = i;
    }
    if (merges[best] == kNoMerge) break;
    symbols[best] = static_cast<std::int32_t>(merges[best] & 0xffffffffu);
    for (std::size_t i = best + 1; i + 1 < count; ++i) {
      symbols[i] = symbols[i + 1];
      merges[i - 1] = merges[i];
    }
    --count;
    if (best > 0) merges[best - 1] = lookup(symbols[best - 1], symbols[best]);
    if (best + 1 < count) merges[best] = lookup(symbols[best], symbols[best + 1]);
  }
  symbols.resize(count);
}

void BpeMerger::merge_long(std::vector<std::int32_t>& symbols) const {
  const std::size_t count = symbols.size();
  GANTRY_CHECK(count < (std::size_t{1} << 31), "a word of {} symbols is too long to tokenise; split the text", count);
  std::vector<Node> nodes(count);
  for (std::size_t i = 0; i < count; ++i) {
    nodes[i] = {symbols[i], static_cast<std::int32_t>(i) - 1, i + 1 < count ? static_cast<std::int32_t>(i) + 1 : -1};
  }
  std::vector<Candidate> storage;
  storage.reserve(count);
  const auto candidate = [&](std::int32_t left, std::int32_t right, auto&& accept) {
    if (left < 0 || right < 0) return;
    const std::int32_t left_id = nodes[static_cast<std::size_t>(left)].id;
    const std::int32_t right_id = nodes[static_cast<std::size_t>(right)].id;
    const std::uint64_t merge = lookup(left_id, right_id);
    if (merge == kNoMerge) return;
    accept(Candidate{merge, static_cast<std::uint32_t>(left), static_cast<std::uint32_t>(right), left_id, right_id});
  };
  for (std::size_t i = 0; i + 1 < count; ++i) {
    candidate(static_cast<std::int32_t>(i), static_cast<std::int32_t>(i) + 1,
              [&](const Candidate& c) { storage.push_back(c); });
  }
  std::priority_queue<Candidate> heap(std::less<Candidate>{}, std::move(storage));
  while (!heap.empty()) {
    const Candidate top = heap.top();
    heap.pop();
    Node& left = nodes[top.left];
    Node& right = nodes[top.right];
    // Stale: one side was merged away or changed since.
    if (left.id != top.left_id || right.id != top.right_id || left.next != static_cast<std::int32_t>(top.right))
      continue;
    left.id = static_cast<std::int32_t>(top.merge & 0xffffffffu);
    left.next = right.next;
    if (right.next >= 0) nodes[static_cast<std::size_t>(right.next)].previous = static_cast<std::int32_t>(top.left);
    right.id = -1;
    const auto push = [&](const Candidate& c) { heap.push(c); };
    candidate(left.previous, static_cast<std::int32_t>(top.left), push);
    candidate(static_cast<std::int32_t>(top.left), left.next, push);
  }
  symbols.clear();
  for (std::int32_t i = 0; i >= 0; i = nodes[static_cast<std::size_t>(i)].next) {
    symbols.push_back(nodes[static_cast<std::size_t>(i)].id);
  }
}

}  // namespace gantry::text
