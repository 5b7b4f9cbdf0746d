#pragma once
// What a training layer keeps for its backward pass.
#include <array>
#include <string>
#include <string_view>

namespace gantry::layers {

/// From most bytes to fewest, except that kInt8 stands apart: it is lossy. What each mode keeps, per module:
///
///   mode         attention                    MLP                             norm
///   kStore       what ATen's operators keep   input and output of the         input, statistics and, by the next
///                (probabilities, masks)       activation                      linear, output
///   kInPlace     Q, K, V and probabilities    output of the activation and    output (shared with the next linear),
///                with the mask in their sign  a bit an element                1 / deviation
///   kRecompute   Q, K, V, output, log-sums    input of the activation         as kInPlace
///                (flash attention)
///   kRerun       input of the projection      input of the block              as kInPlace
///   kInt8        Q, K, V in int8              both inputs in int8             normalised input in int8
enum class MemoryMode { kStore, kInPlace, kRecompute, kRerun, kInt8 };

inline constexpr std::array<MemoryMode, 5> kMemoryModes = {
    MemoryMode::kStore, MemoryMode::kInPlace, MemoryMode::kRecompute, MemoryMode::kRerun, MemoryMode::kInt8};

/// store, in-place, recompute, rerun, int8.
std::string_view memory_mode_name(MemoryMode mode);
/// InputError that lists the names for another text.
MemoryMode parse_memory_mode(std::string_view name);

/// The modes of one transformer layer. The default is exact up to rounding and costs no time.
struct LayerMemory {
  MemoryMode attention = MemoryMode::kRecompute;
  MemoryMode mlp = MemoryMode::kRecompute;
  MemoryMode norm = MemoryMode::kInPlace;

  bool operator==(const LayerMemory&) const = default;
};

/// "recompute" where all three agree, else "attention=rerun mlp=recompute norm=in-place".
std::string describe(const LayerMemory& memory);

}  // namespace gantry::layers
