// The GGUF parser: any bytes either parse into tensors whose data lies inside the input, or are refused; small tensors
// of the types that are read are de-quantised.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "gantry/base/check.h"
#include "gantry/formats/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::int64_t kMaxElements = 1 << 16;
  const auto image = std::as_bytes(std::span(data, size));
  try {
    const auto file = gantry::formats::GgufFile::parse(image, "fuzz");
    for (const auto& tensor : file.tensors()) {
      if (file.raw(tensor).size() != tensor.bytes || file.find(tensor.name) != &tensor) std::abort();
      if (gantry::formats::gguf_traits(tensor.type).dequantize == nullptr || tensor.numel() > kMaxElements) continue;
      std::vector<float> values(static_cast<std::size_t>(tensor.numel()));
      gantry::formats::dequantize_blocks(tensor.type, file.raw(tensor), values);
    }
    if (file.has("tokenizer.ggml.tokens")) file.get_string_array("tokenizer.ggml.tokens");
    if (file.has("k")) file.get_u32("k");
  } catch (const gantry::base::InputError&) {
  }
  return 0;
}
