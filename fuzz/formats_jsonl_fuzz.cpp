// The JSONL reader: any bytes give documents or an error that names a line; every byte is consumed at most once.
#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>

#include "gantry/base/check.h"
#include "gantry/formats/jsonl.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::istringstream stream(std::string(reinterpret_cast<const char*>(data), size));
  gantry::formats::JsonlReader reader(stream, "fuzz", 1 << 16);
  try {
    for (gantry::base::Json value; reader.next(value);) {
      // What was read can be written as one line and read again.
      const std::string line = value.dump();
      if (line.find('\n') != std::string::npos || gantry::base::parse_json(line, "again") != value) std::abort();
    }
    if (reader.offset() != size) std::abort();
  } catch (const gantry::base::InputError&) {
  }
  return 0;
}
