#include "gantry/text/vocabulary.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "gantry/base/check.h"

namespace gantry::text {
namespace {

std::vector<std::pair<std::string_view, std::int32_t>> numbered(const std::vector<std::string>& tokens) {
  std::vector<std::pair<std::string_view, std::int32_t>> pairs;
  pairs.reserve(tokens.size());
  for (const std::string& token : tokens) pairs.emplace_back(token, static_cast<std::int32_t>(pairs.size()));
  return pairs;
}

// Room for padding and a few reserved blocks, but no gigabytes of holes because of one forged id.
std::int64_t largest_accepted_id(std::size_t token_count) {
  return std::min<std::int64_t>(static_cast<std::int64_t>(token_count) * 8 + 65536,
                                std::numeric_limits<std::int32_t>::max() - 1);
}

}  // namespace

Vocabulary::Vocabulary(const std::vector<std::string>& tokens, std::string_view source)
    : Vocabulary(numbered(tokens), source) {}

Vocabulary::Vocabulary(const std::vector<std::pair<std::string_view, std::int32_t>>& tokens, std::string_view source) {
  const std::int64_t largest = largest_accepted_id(tokens.size());
  std::size_t bytes = 1;
  std::int32_t top = -1;
  for (const auto& [token, id] : tokens) {
    GANTRY_CHECK(id >= 0 && id <= largest, "{}: token '{}' has id {}, expected 0 to {} for a vocabulary of {} tokens",
                 source, token, id, largest, tokens.size());
    bytes += token.size();
    top = std::max(top, id);
  }
  GANTRY_CHECK(bytes < std::numeric_limits<std::uint32_t>::max(), "{}: the tokens hold {} bytes, 4 GiB is the limit",
               source, bytes);
  arena_.reserve(bytes);
  arena_.push_back('\0');
  entries_.resize(static_cast<std::size_t>(top + 1));
  std::size_t capacity = 16;
  while (capacity < tokens.size() * 2) capacity *= 2;
  table_.assign(capacity, kNone);
  for (const auto& [token, id] : tokens) {
    Entry& entry = entries_[static_cast<std::size_t>(id)];
    GANTRY_CHECK(entry.offset == kHole, "{}: id {} stands for two tokens, '{}' and '{}'; give each its own id", source,
                 id, text(id), token);
    entry = {static_cast<std::uint32_t>(arena_.size()), static_cast<std::uint32_t>(token.size())};
    arena_.append(token);
    std::size_t slot = std::hash<std::string_view>{}(token) & (capacity - 1);
    while (table_[slot] != kNone && text(table_[slot]) != token) slot = (slot + 1) & (capacity - 1);
    if (table_[slot] == kNone) table_[slot] = id;
  }
}

std::int32_t Vocabulary::find(std::string_view token) const {
  if (table_.empty()) return kNone;
  const std::size_t mask = table_.size() - 1;
  for (std::size_t slot = std::hash<std::string_view>{}(token)&mask;; slot = (slot + 1) & mask) {
    const std::int32_t id = table_[slot];
    if (id == kNone || text(id) == token) return id;
  }
}

}  // namespace gantry::text
