#include "gantry/tensor/huge_page_allocator.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <string>

#include "gantry/tensor/live_bytes.h"

namespace gantry::tensor {
namespace {

// Whether the mapping that holds `address` asks for huge pages: flag "hg" of its VmFlags.
bool asks_for_huge_pages(const void* address) {
  std::ifstream maps("/proc/self/smaps");
  const auto wanted = reinterpret_cast<std::uintptr_t>(address);
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    std::uintptr_t first = 0, last = 0;
    char dash = 0;
    if (std::sscanf(line.c_str(), "%lx%c%lx", &first, &dash, &last) == 3 && dash == '-') {
      inside = first <= wanted && wanted < last;
    } else if (inside && line.rfind("VmFlags:", 0) == 0) {
      return line.find(" hg") != std::string::npos;
    }
  }
  return false;
}

TEST(HugePageAllocator, LargeTensorsAskForHugePagesAndStayInTorchsAccounts) {
  if (!std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled")) GTEST_SKIP() << "a kernel without huge pages";
  if (std::getenv("THP_MEM_ALLOC_ENABLE") != nullptr) GTEST_SKIP() << "THP_MEM_ALLOC_ENABLE is set";
  put_tensors_on_huge_pages();
  put_tensors_on_huge_pages();
  const std::int64_t elements = std::int64_t{16} << 20;
  const LiveBytes live;
  {
    const at::Tensor large = at::ones({elements}), copy = large.clone();
    EXPECT_TRUE(asks_for_huge_pages(large.const_data_ptr()));
    EXPECT_TRUE(asks_for_huge_pages(copy.const_data_ptr<float>() + elements - 1));
    EXPECT_EQ(live.now(), 2 * elements * 4);
    EXPECT_EQ(copy.sum().item<float>(), static_cast<float>(elements));
  }
  EXPECT_EQ(live.now(), 0) << "bytes that were freed are still counted";
}

}  // namespace
}  // namespace gantry::tensor
