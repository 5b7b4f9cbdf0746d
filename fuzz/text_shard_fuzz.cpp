// Token shards: whatever the bytes, a view that opens may be read from end to end, and one that verifies is in order.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "gantry/base/check.h"
#include "gantry/text/dataset_shard.h"

namespace {

void read_through(const gantry::text::ShardView& view) {
  std::vector<std::int32_t> tokens(std::min<std::uint64_t>(view.token_count(), 4096));
  view.copy_tokens(0, tokens);
  view.copy_tokens(view.token_count() - tokens.size(), tokens);
  if (view.token_count() != 0) {
    view.trained(0);
    view.trained(view.token_count() - 1);
  }
  for (std::uint64_t i = 0; i <= std::min<std::uint64_t>(view.document_count(), 4096); ++i) view.document_start(i);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using Verify = gantry::text::ShardView::Verify;
  const auto bytes = std::as_bytes(std::span(data, size));
  for (const Verify verify : {Verify::kHeader, Verify::kAll}) {
    try {
      const gantry::text::ShardView view(bytes, "fuzz", verify);
      read_through(view);
      if (verify == Verify::kAll && view.document_start(view.document_count()) != view.token_count()) std::abort();
    } catch (const gantry::base::InputError&) {
    }
  }
  return 0;
}
