#include "gantry/text/unigram_model.h"

#include <algorithm>
#include <cmath>

#include "gantry/text/pipeline_constants.h"
#include "gantry/text/utf8.h"

namespace gantry::text {
namespace {

constexpr double kUnkPenalty = 10.0;

// Id that stands for an unknown character in the lattice.
constexpr std::int32_t kUnknown = -2;

}  // namespace

UnigramModel::UnigramModel(Vocabulary vocabulary, std::vector<double> scores, const std::vector<bool>& used,
                           UnigramOptions options, std::string_view source)
    : Model(std::move(vocabulary)), options_(options), scores_(std::move(scores)) {
  GANTRY_CHECK(scores_.size() == static_cast<std::size_t>(vocabulary_.size()), "{}: {} scores for {} tokens", source,
               scores_.size(), vocabulary_.size());
  GANTRY_CHECK(options_.unk_id >= Vocabulary::kNone && options_.unk_id < vocabulary_.size(),
               "{}: unk_id is {}, the vocabulary has {} tokens", source, options_.unk_id, vocabulary_.size());
  if (options_.byte_fallback) byte_ids_ = byte_token_ids(vocabulary_);
  std::vector<bool> is_byte(scores_.size(), false);
  for (const std::int32_t id : byte_ids_) is_byte[static_cast<std::size_t>(id)] = true;
  double lowest = 0;
  bool any = false;
  for (std::int32_t id = 0; id < vocabulary_.size(); ++id) {
    const auto at = static_cast<std::size_t>(id);
    GANTRY_CHECK(std::isfinite(scores_[at]), "{}: the score of token '{}' is not finite", source, vocabulary_.text(id));
    const bool matched = used[at] && !is_byte[at] && id != options_.unk_id && !vocabulary_.text(id).empty();
    if (!matched) continue;
    lowest = any ? std::min(lowest, scores_[at]) : scores_[at];
    any = true;
    trie_.insert(vocabulary_.text(id), id);
  }
  unk_score_ = lowest - kUnkPenalty;
  may_cut_ = !crosses_metaspace(vocabulary_) && vocabulary_.find(kMetaspace) != Vocabulary::kNone;
}

void UnigramModel::encode(std::string_view piece, std::vector<std::int32_t>& out) const {
  if (piece.empty() || cache_.append(piece, out)) return;
  const std::size_t start = out.size();
  encode_uncached(piece, out);
  cache_.store(piece, std::span(out).subspan(start));
}

void UnigramModel::relax(Step& target, double score, std::size_t start, std::int32_t id) const {
  if (options_.single_precision) score = static_cast<float>(score);
  if (!target.reached || score > target.score) target = {score, start, id, true};
}

void UnigramModel::forward(std::string_view piece, std::vector<Step>& steps) const {
  steps.assign(piece.size() + 1, Step{});
  steps[0].reached = true;
  for (std::size_t position = 0; position < piece.size();) {
    const std::size_t char_length = decode_utf8(piece, position).length;
    const double here = steps[position].score;
    bool covers_char = false;
    ByteTrie::Node node = ByteTrie::kRoot;
    for (std::size_t end = position; end < piece.size() && trie_.step(node, piece[end]); ++end) {
      const std::int32_t id = trie_.id(node);
      if (id == ByteTrie::kNone) continue;
      relax(steps[end + 1], here + scores_[static_cast<std::size_t>(id)], position, id);
      covers_char = covers_char || end + 1 - position == char_length;
    }
    if (!covers_char) relax(steps[position + char_length], here + unk_score_, position, kUnknown);
    position += char_length;
  }
}

void UnigramModel::encode_uncached(std::string_view piece, std::vector<std::int32_t>& out) const {
  thread_local std::vector<Step> steps;
  forward(piece, steps);
  thread_local std::vector<std::size_t> ends;
  ends.clear();
  for (std::size_t end = piece.size(); end > 0; end = steps[end].start) ends.push_back(end);
  bool after_unknown = false;
  for (auto end = ends.rbegin(); end != ends.rend(); ++end) {
    const Step& step = steps[*end];
    const bool unknown = step.id == kUnknown;
    if (unknown)
      append_unknown(piece.substr(step.start, *end - step.start), after_unknown, out);
    else
      out.push_back(step.id);
    after_unknown = unknown;
  }
}

void UnigramModel::append_unknown(std::string_view text, bool after_unknown, std::vector<std::int32_t>& out) const {
  if (!byte_ids_.empty()) {
    for (const char c : text) out.push_back(byte_ids_[static_cast<unsigned char>(c)]);
  } else if (!after_unknown && options_.unk_id != Vocabulary::kNone) {
    out.push_back(options_.unk_id);
  }
}

base::OrderedJson UnigramModel::to_json() const {
  base::OrderedJson json = {{"type", "Unigram"}};
  json["unk_id"] = options_.unk_id < 0 ? base::OrderedJson(nullptr) : base::OrderedJson(options_.unk_id);
  base::OrderedJson::array_t vocab;
  vocab.reserve(scores_.size());
  for (std::int32_t id = 0; id < vocabulary_.size(); ++id) {
    vocab.push_back({vocabulary_.text(id), scores_[static_cast<std::size_t>(id)]});
  }
  json["vocab"] = std::move(vocab);
  json["byte_fallback"] = options_.byte_fallback;
  return json;
}

}  // namespace gantry::text
