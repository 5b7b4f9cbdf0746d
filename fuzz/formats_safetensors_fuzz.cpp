// The safetensors parser: any bytes either parse into tensors whose data lies inside the input, or are refused.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "gantry/base/check.h"
#include "gantry/formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto image = std::as_bytes(std::span(data, size));
  try {
    const auto file = gantry::formats::SafetensorsFile::parse(image, "fuzz");
    std::uint64_t total = 0;
    for (const auto& tensor : file.tensors()) {
      total += file.data(tensor).size();
      if (file.find(tensor.name) != &tensor) std::abort();
    }
    if (total > size) std::abort();
  } catch (const gantry::base::InputError&) {
  }
  return 0;
}
