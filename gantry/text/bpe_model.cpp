#include "gantry/text/bpe_model.h"

#include <algorithm>
#include <numeric>

#include "gantry/text/byte_map.h"
#include "gantry/text/pipeline_constants.h"
#include "gantry/text/utf8.h"

namespace gantry::text {
namespace {

constexpr std::size_t kMaxMergedBytes = 1024;  // finding the ways to cut a token is quadratic in its length

std::vector<std::uint32_t> ascending(std::size_t count) {
  std::vector<std::uint32_t> ranks(count);
  std::iota(ranks.begin(), ranks.end(), 0u);
  return ranks;
}

std::vector<std::int32_t> spelled_byte_ids(const Vocabulary& vocabulary) {
  std::vector<std::int32_t> ids(256);
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    ids[byte] = vocabulary.find(spell_bytes(std::string_view(&c, 1)));
  }
  return ids;
}

}  // namespace

BpeModel::BpeModel(Vocabulary vocabulary, std::vector<BpeMerge> merges, BpeOptions options, std::string_view source,
                   std::vector<std::uint32_t> ranks)
    : Model(std::move(vocabulary)),
      options_(std::move(options)),
      merges_(std::move(merges)),
      merger_(merges_, ranks.empty() ? ascending(merges_.size()) : ranks) {
  unk_id_ = options_.unk_token.empty() ? Vocabulary::kNone : vocabulary_.find(options_.unk_token);
  GANTRY_CHECK(options_.unk_token.empty() || unk_id_ != Vocabulary::kNone,
               "{}: the unknown token '{}' is not in the vocabulary", source, options_.unk_token);
  if (options_.spells_bytes)
    byte_ids_ = spelled_byte_ids(vocabulary_);
  else if (options_.byte_fallback)
    byte_ids_ = byte_token_ids(vocabulary_);
  may_cut_ = !options_.spells_bytes && !options_.ignore_merges && options_.continuing_subword_prefix.empty() &&
             options_.end_of_word_suffix.empty() && !crosses_metaspace(vocabulary_) &&
             vocabulary_.find(kMetaspace) != Vocabulary::kNone;
}

void BpeModel::encode(std::string_view piece, std::vector<std::int32_t>& out) const {
  if (piece.empty() || cache_.append(piece, out)) return;
  const std::size_t start = out.size();
  encode_uncached(piece, out);
  cache_.store(piece, std::span(out).subspan(start));
}

void BpeModel::encode_uncached(std::string_view piece, std::vector<std::int32_t>& out) const {
  if (options_.ignore_merges) {
    const std::int32_t whole = vocabulary_.find(options_.spells_bytes ? spell_bytes(piece) : std::string(piece));
    if (whole != Vocabulary::kNone) {
      out.push_back(whole);
      return;
    }
  }
  thread_local std::vector<std::int32_t> symbols;
  symbols.clear();
  if (options_.spells_bytes)
    byte_symbols(piece, symbols);
  else
    char_symbols(piece, symbols);
  merger_.merge(symbols);
  out.insert(out.end(), symbols.begin(), symbols.end());
}

void BpeModel::byte_symbols(std::string_view piece, std::vector<std::int32_t>& symbols) const {
  bool after_unk = false;
  for (const char c : piece) {
    const std::int32_t id = byte_ids_[static_cast<unsigned char>(c)];
    const bool unknown = id == Vocabulary::kNone;
    if (!unknown)
      symbols.push_back(id);
    else if (unk_id_ != Vocabulary::kNone && !(after_unk && options_.fuse_unk))
      symbols.push_back(unk_id_);
    after_unk = unknown;
  }
}

void BpeModel::char_symbols(std::string_view piece, std::vector<std::int32_t>& symbols) const {
  const bool plain = options_.continuing_subword_prefix.empty() && options_.end_of_word_suffix.empty();
  std::string decorated;
  bool after_unk = false;
  for (std::size_t position = 0; position < piece.size();) {
    const std::size_t length = decode_utf8(piece, position).length;
    std::string_view symbol = piece.substr(position, length);
    if (!plain) {
      decorated = position == 0 ? "" : options_.continuing_subword_prefix;
      decorated += symbol;
      if (position + length == piece.size()) decorated += options_.end_of_word_suffix;
      symbol = decorated;
    }
    position += length;
    const std::int32_t id = vocabulary_.find(symbol);
    const bool unknown = id == Vocabulary::kNone && !fall_back(symbol, symbols);
    if (id != Vocabulary::kNone)
      symbols.push_back(id);
    else if (unknown && unk_id_ != Vocabulary::kNone && !(after_unk && options_.fuse_unk))
      symbols.push_back(unk_id_);
    after_unk = unknown;
  }
}

bool BpeModel::fall_back(std::string_view symbol, std::vector<std::int32_t>& symbols) const {
  if (!options_.byte_fallback || byte_ids_.empty()) return false;
  for (const char c : symbol) symbols.push_back(byte_ids_[static_cast<unsigned char>(c)]);
  return true;
}

base::OrderedJson BpeModel::to_json() const {
  base::OrderedJson json = {{"type", "BPE"}, {"dropout", nullptr}};
  json["unk_token"] = options_.unk_token.empty() ? base::OrderedJson(nullptr) : base::OrderedJson(options_.unk_token);
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? base::OrderedJson(nullptr) : base::OrderedJson(text);
  };
  json["continuing_subword_prefix"] = text_or_null(options_.continuing_subword_prefix);
  json["end_of_word_suffix"] = text_or_null(options_.end_of_word_suffix);
  json["fuse_unk"] = options_.fuse_unk;
  json["byte_fallback"] = options_.byte_fallback;
  json["ignore_merges"] = options_.ignore_merges;
  json["vocab"] = vocabulary_json();
  base::OrderedJson::array_t merges;
  merges.reserve(merges_.size());
  for (const BpeMerge& merge : merges_) {
    merges.push_back({vocabulary_.text(merge.left), vocabulary_.text(merge.right)});
  }
  json["merges"] = std::move(merges);
  return json;
}

std::vector<BpeMerge> resolve_merges(const Vocabulary& vocabulary,
                                     const std::vector<std::pair<std::string_view, std::string_view>>& sides,
                                     std::string_view continuing_subword_prefix, std::string_view source) {
  std::vector<BpeMerge> merges;
  merges.reserve(sides.size());
  std::string joined;
  const auto id_of = [&](std::string_view token) {
    const std::int32_t id = vocabulary.find(token);
    GANTRY_CHECK(id != Vocabulary::kNone, "{}: merge {} ('{}' + '{}') needs the token '{}', which the vocabulary lacks",
                 source, merges.size(), sides[merges.size()].first, sides[merges.size()].second, token);
    return id;
  };
  for (const auto& [left, right] : sides) {
    const bool continues = !continuing_subword_prefix.empty() && right.starts_with(continuing_subword_prefix);
    joined.assign(left).append(continues ? right.substr(continuing_subword_prefix.size()) : right);
    merges.push_back({id_of(left), id_of(right), id_of(joined)});
  }
  return merges;
}

std::vector<BpeMerge> merges_from_scores(const Vocabulary& vocabulary, const std::vector<float>& scores,
                                         const std::vector<bool>& used, std::vector<std::uint32_t>& ranks,
                                         std::string_view source) {
  std::vector<BpeMerge> merges;
  for (std::int32_t id = 0; id < vocabulary.size(); ++id) {
    if (!used[static_cast<std::size_t>(id)]) continue;
    const std::string_view token = vocabulary.text(id);
    GANTRY_CHECK(token.size() <= kMaxMergedBytes, "{}: token {} has {} bytes, the limit for a merged token is {}",
                 source, id, token.size(), kMaxMergedBytes);
    for (std::size_t cut = 1; cut < token.size(); ++cut) {
      if ((static_cast<unsigned char>(token[cut]) & 0xc0u) == 0x80u) continue;
      const std::int32_t left = vocabulary.find(token.substr(0, cut));
      const std::int32_t right = vocabulary.find(token.substr(cut));
      if (left == Vocabulary::kNone || right == Vocabulary::kNone) continue;
      if (used[static_cast<std::size_t>(left)] && used[static_cast<std::size_t>(right)])
        merges.push_back({left, right, id});
    }
  }
  const auto score = [&](const BpeMerge& merge) { return scores[static_cast<std::size_t>(merge.result)]; };
  std::stable_sort(merges.begin(), merges.end(),
                   [&](const BpeMerge& a, const BpeMerge& b) { return score(a) > score(b); });
  ranks.clear();
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const bool same = i > 0 && score(merges[i]) == score(merges[i - 1]);
    ranks.push_back(i == 0 ? 0 : ranks.back() + (same ? 0 : 1));
  }
  return merges;
}

}  // namespace gantry::text
