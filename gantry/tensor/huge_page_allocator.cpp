#include "gantry/tensor/huge_page_allocator.h"

#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

namespace gantry::tensor {
namespace {

constexpr std::uintptr_t kHugePage = std::uintptr_t{2} << 20;

// Torch's own allocator, which keeps the accounts, and the advice.
class HugePageAllocator final : public c10::Allocator {
 public:
  explicit HugePageAllocator(c10::Allocator* base) : base_(base) {}
  c10::DataPtr allocate(std::size_t bytes) override {
    c10::DataPtr memory = base_->allocate(bytes);
    if (bytes >= kHugeTensorBytes) advise_huge_pages(memory.get(), bytes);
    return memory;
  }
  c10::DeleterFnPtr raw_deleter() const override { return base_->raw_deleter(); }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { base_->copy_data(to, from, bytes); }

 private:
  c10::Allocator* base_;
};

}  // namespace

void put_tensors_on_huge_pages() {
  static const bool done = [] {
    if (const char* value = std::getenv("THP_MEM_ALLOC_ENABLE"); value == nullptr || *value == 0) {
      c10::SetCPUAllocator(new HugePageAllocator(c10::GetCPUAllocator()));  // lives as long as the process
    }
    return true;
  }();
  static_cast<void>(done);
}

void advise_huge_pages(void* start, std::size_t bytes) {
#ifdef MADV_HUGEPAGE
  const auto address = reinterpret_cast<std::uintptr_t>(start);
  const std::uintptr_t first = address / kHugePage * kHugePage;
  const std::uintptr_t last = (address + bytes + kHugePage - 1) / kHugePage * kHugePage;
  ::madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  static_cast<void>(start);
  static_cast<void>(bytes);
#endif
}

}  // namespace gantry::tensor
