#pragma once
// The JSON header of a safetensors file, parsed as a stream: no document tree, duplicate names seen.
#include <string>
#include <string_view>
#include <vector>

#include "gantry/formats/safetensors.h"

namespace gantry::formats::internal {

/// A tensor as the header states it, before any check against the file. `offset` and `bytes` of `info` are unset.
struct HeaderTensor {
  TensorInfo info;
  std::uint64_t begin = 0;  ///< from the start of the data section
  std::uint64_t end = 0;
};

struct Header {
  std::vector<HeaderTensor> tensors;
  SafetensorsMetadata metadata;
};

/// Throws InputError for malformed JSON and for entries of the wrong form.
Header parse_safetensors_header(std::string_view json, const std::string& source);

}  // namespace gantry::formats::internal
