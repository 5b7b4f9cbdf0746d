#pragma once
// Arrays in chunks of sixteen elements, the last one padded. Only *_cpu.cpp files include it.
#include "gantry/kernels/activation/vector.h"

namespace gantry::kernels::GANTRY_ISA_NAMESPACE {

inline constexpr int kChunk = 16;

/// An array's next chunk, or a padded copy of its last few elements.
template <class T>
class In {
 public:
  In(const T* from, std::int64_t count) : at_(from) {
    if (count == kChunk) return;
    std::memcpy(static_cast<void*>(copy_), from, static_cast<std::size_t>(count) * sizeof(T));
    at_ = copy_;
  }
  const T* at() const { return at_; }

 private:
  const T* at_;
  T copy_[kChunk] = {};
};

template <class T>
class Out {
 public:
  Out(T* to, std::int64_t count) : to_(to), count_(static_cast<std::size_t>(count)) {}
  ~Out() {
    if (count_ != kChunk) std::memcpy(static_cast<void*>(to_), copy_, count_ * sizeof(T));
  }
  Out(const Out&) = delete;
  Out& operator=(const Out&) = delete;
  T* at() { return count_ == kChunk ? to_ : copy_; }

 private:
  T* to_;
  std::size_t count_;
  T copy_[kChunk];
};

template <class Body>
GANTRY_VECTOR void for_chunks(std::int64_t begin, std::int64_t end, Body body) {
  std::int64_t i = begin;
  for (; i + kChunk <= end; i += kChunk) body(i, std::int64_t{kChunk});
  if (i < end) body(i, end - i);
}

}  // namespace gantry::kernels::GANTRY_ISA_NAMESPACE
