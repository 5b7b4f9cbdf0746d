#include "gantry/tensor/huge_pages.h"

#include <ATen/Parallel.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "gantry/base/check.h"

namespace gantry::tensor {
namespace {

std::shared_ptr<std::byte> allocate(std::size_t bytes) {
  void* area = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (area == MAP_FAILED) base::fail("cannot allocate {} bytes for weights: {}", bytes, std::strerror(errno));
#ifdef MADV_HUGEPAGE
  ::madvise(area, bytes, MADV_HUGEPAGE);  // advice: refusal costs speed only
#endif
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(area),
                                    [bytes](std::byte* start) { ::munmap(start, bytes); });
}

void copy_parallel(std::byte* to, const std::byte* from, std::int64_t bytes) {
  constexpr std::int64_t kPiece = 2 << 20;  // a huge page: each is faulted in by one thread
  at::parallel_for(0, (bytes + kPiece - 1) / kPiece, 1, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t first = begin * kPiece, last = std::min(bytes, end * kPiece);
    std::memcpy(to + first, from + first, static_cast<std::size_t>(last - first));
  });
}

}  // namespace

std::vector<at::Tensor> copy_to_huge_pages(const std::vector<at::Tensor>& tensors) {
  std::size_t total = 0;
  for (const auto& tensor : tensors) {
    GANTRY_CHECK(tensor.is_cpu() && tensor.is_contiguous(), "huge pages: expected contiguous CPU tensors");
    total += tensor.nbytes();
  }
  if (total == 0) return tensors;
  auto area = allocate(total);
  std::vector<at::Tensor> copies;
  std::size_t offset = 0;
  // One storage under all views, so that neighbours in the area can be multiplied as one matrix.
  const at::Tensor whole = at::from_blob(
      area.get(), {static_cast<std::int64_t>(total)}, [area](void*) mutable { area.reset(); },
      at::TensorOptions().dtype(at::kByte));
  for (const auto& tensor : tensors) {
    const auto bytes = static_cast<std::int64_t>(tensor.nbytes());
    copy_parallel(area.get() + offset, static_cast<const std::byte*>(tensor.const_data_ptr()), bytes);
    const at::Tensor place = whole.narrow(0, static_cast<std::int64_t>(offset), bytes);
    copies.push_back(place.view(tensor.scalar_type()).view(tensor.sizes()));
    offset += tensor.nbytes();
  }
  return copies;
}

}  // namespace gantry::tensor
