// The .npy parser and the ZIP reader around it: any bytes are read as an array or as an archive of arrays, or refused.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "gantry/base/check.h"
#include "gantry/formats/npy.h"

namespace {

void check(const gantry::formats::NpyArray& array) {
  if (gantry::formats::checked_bytes(array.shape, array.dtype) != array.data.size()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::uint64_t kMaxMemberBytes = 1 << 24;
  const auto image = std::as_bytes(std::span(data, size));
  if (size > 0 && data[0] != 'P') {
    try {
      check(gantry::formats::parse_npy(image, "fuzz"));
    } catch (const gantry::base::InputError&) {
    }
  }
  try {
    const auto file = gantry::formats::NpzFile::parse(image, "fuzz");
    int members = 0;
    for (const auto& name : file.names()) {
      if (++members > 8) break;
      try {
        check(file.read(name, kMaxMemberBytes));
      } catch (const gantry::base::InputError&) {
      }
    }
  } catch (const gantry::base::InputError&) {
  }
  return 0;
}
