#include "gantry/text/word_cache.h"

#include <atomic>
#include <cstring>
#include <memory>

#include "gantry/base/random.h"

namespace gantry::text {
namespace {

constexpr std::size_t kMaxBytes = 22;
constexpr std::size_t kMaxIds = 8;
constexpr std::size_t kSlots = std::size_t{1} << 14;  // 1 MiB a thread

struct alignas(64) Slot {
  std::uint64_t owner;  // 0: empty
  std::uint8_t bytes;
  std::uint8_t count;
  char word[kMaxBytes];
  std::int32_t ids[kMaxIds];
};
static_assert(sizeof(Slot) == 64, "one cache line a word");

Slot& slot_of(std::uint64_t owner, std::string_view word) {
  thread_local const std::unique_ptr<Slot[]> table = std::make_unique<Slot[]>(kSlots);
  std::uint64_t head = 0;
  std::uint64_t tail = 0;
  std::memcpy(&head, word.data(), word.size() < 8 ? word.size() : 8);
  std::uint64_t hash = base::mix64(head ^ (owner << 56) ^ (word.size() << 48));
  for (std::size_t at = 8; at < word.size(); at += 8) {
    tail = 0;
    std::memcpy(&tail, word.data() + at, word.size() - at < 8 ? word.size() - at : 8);
    hash = base::mix64(hash ^ tail);
  }
  return table[hash & (kSlots - 1)];
}

std::uint64_t next_owner() {
  static std::atomic<std::uint64_t> count{0};
  return ++count;
}

}  // namespace

WordCache::WordCache() : owner_(next_owner()) {}

bool WordCache::append(std::string_view word, std::vector<std::int32_t>& out) const {
  if (word.size() > kMaxBytes) return false;
  const Slot& slot = slot_of(owner_, word);
  if (slot.owner != owner_ || slot.bytes != word.size() || std::memcmp(slot.word, word.data(), word.size()) != 0) {
    return false;
  }
  out.insert(out.end(), slot.ids, slot.ids + slot.count);
  return true;
}

void WordCache::store(std::string_view word, std::span<const std::int32_t> ids) const {
  if (word.size() > kMaxBytes || ids.size() > kMaxIds) return;
  Slot& slot = slot_of(owner_, word);
  slot.owner = owner_;
  slot.bytes = static_cast<std::uint8_t>(word.size());
  slot.count = static_cast<std::uint8_t>(ids.size());
  std::memcpy(slot.word, word.data(), word.size());
  if (!ids.empty()) std::memcpy(slot.ids, ids.data(), ids.size_bytes());
}

}  // namespace gantry::text
