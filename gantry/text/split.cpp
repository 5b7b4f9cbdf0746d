#include "gantry/text/split.h"

#include "gantry/base/check.h"
#include "gantry/text/utf8.h"

namespace gantry::text {
namespace {

struct Span {
  std::size_t begin;
  std::size_t end;
  bool matched;
};

// Covers `text` with matched and unmatched spans in turn; empty matches stay as cuts.
void find_spans(std::string_view text, const Regex& pattern, bool invert, std::vector<Span>& spans) {
  spans.clear();
  std::size_t done = 0;
  std::size_t from = 0;
  while (from <= text.size()) {
    const auto match = pattern.find(text, from);
    if (!match) break;
    if (match->begin > done) spans.push_back({done, match->begin, invert});
    spans.push_back({match->begin, match->end, !invert});
    done = match->end;
    from = match->end;
    if (match->begin == match->end) from += from < text.size() ? decode_utf8(text, from).length : 1;
  }
  if (done < text.size()) spans.push_back({done, text.size(), invert});
}

// Merges spans as the behaviour asks and appends the pieces, moved by `offset`.
class Emitter {
 public:
  Emitter(std::vector<Pieces::Range>& out, std::size_t offset) : out_(out), offset_(offset), first_(out.size()) {}

  void emit(const std::vector<Span>& spans, SplitBehavior behavior) {
    bool previous_matched = false;
    bool any = false;
    for (const Span& span : spans) {
      const bool extend = any && extends(behavior, span.matched, previous_matched);
      if (extend) {
        out_.back().end = span.end + offset_;
      } else if (behavior != SplitBehavior::kRemoved || !span.matched) {
        out_.push_back({span.begin + offset_, span.end + offset_});
      }
      previous_matched = span.matched;
      any = out_.size() > first_;
    }
    drop_empty();
  }

 private:
  static bool extends(SplitBehavior behavior, bool matched, bool previous_matched) {
    switch (behavior) {
      case SplitBehavior::kMergedWithPrevious: return matched && !previous_matched;
      case SplitBehavior::kMergedWithNext: return !matched && previous_matched;
      case SplitBehavior::kContiguous: return matched == previous_matched;
      default: return false;
    }
  }

  void drop_empty() {
    std::size_t kept = first_;
    for (std::size_t i = first_; i < out_.size(); ++i) {
      if (out_[i].begin < out_[i].end) out_[kept++] = out_[i];
    }
    out_.resize(kept);
  }

  std::vector<Pieces::Range>& out_;
  std::size_t offset_;
  std::size_t first_;
};

}  // namespace

SplitBehavior parse_split_behavior(std::string_view name, std::string_view source) {
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  base::fail_input(
      "{}: split behavior '{}' is unknown; expected Removed, Isolated, MergedWithPrevious, MergedWithNext or "
      "Contiguous",
      source, name);
}

void split_pieces(Pieces& pieces, const Regex& pattern, SplitBehavior behavior, bool invert) {
  std::vector<Pieces::Range> out;
  out.reserve(pieces.ranges.size() * 2);
  std::vector<Span> spans;
  for (const Pieces::Range& range : pieces.ranges) {
    find_spans(pieces.view(range), pattern, invert, spans);
    Emitter(out, range.begin).emit(spans, behavior);
  }
  pieces.ranges = std::move(out);
}

}  // namespace gantry::text
