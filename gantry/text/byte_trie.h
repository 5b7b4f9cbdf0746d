#pragma once
// A trie over bytes that maps strings to ids: common prefixes of a text, longest match.
#include <cstdint>
#include <string_view>

#include "gantry/text/flat_map.h"

namespace gantry::text {

class ByteTrie {
 public:
  using Node = std::uint32_t;
  static constexpr Node kRoot = 0;
  static constexpr std::int32_t kNone = -1;

  /// Maps `text` (not empty) to `id` >= 0; a text that is present keeps its first id.
  void insert(std::string_view text, std::int32_t id) {
    Node node = kRoot;
    for (const char c : text) {
      const auto next = static_cast<std::uint64_t>(ids_.size());
      const auto [target, is_new] = edges_.insert(key(node, c), next);
      if (is_new) ids_.push_back(kNone);
      node = static_cast<Node>(*target);
    }
    if (ids_[node] == kNone) ids_[node] = id;
  }

  /// Follows one byte; false when no string continues that way.
  bool step(Node& node, char c) const {
    const std::uint64_t* next = edges_.find(key(node, c));
    if (next == nullptr) return false;
    node = static_cast<Node>(*next);
    return true;
  }
  std::int32_t id(Node node) const { return ids_[node]; }

  struct Match {
    std::int32_t id = kNone;
    std::size_t length = 0;
  };
  /// The longest stored string that begins `text`, starting below `node`; id kNone when there is none.
  Match longest(std::string_view text, Node node = kRoot) const {
    Match best;
    for (std::size_t i = 0; i < text.size() && step(node, text[i]); ++i) {
      if (ids_[node] != kNone) best = {ids_[node], i + 1};
    }
    return best;
  }
  bool empty() const { return ids_.size() == 1; }

 private:
  static std::uint64_t key(Node node, char c) {
    return (static_cast<std::uint64_t>(node) << 8) | static_cast<unsigned char>(c);
  }

  FlatMap64 edges_;
  std::vector<std::int32_t> ids_ = {kNone};
};

}  // namespace gantry::text
