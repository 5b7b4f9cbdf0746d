#pragma once
// What a training layer keeps for its backward pass.
#include <array>
#include <string>
#include <string_view>

namespace gantry::spec {

/// Of one module. kInt8 is lossy; the others give the same gradients up to rounding. What each keeps:
///
///   mode         attention                       MLP                             norm
///   kStore       torch's math path               input and output of the         input and statistics
///                                               activation
///   kInPlace     Q, K, V, probabilities with     output of the activation and    output, 1/deviation
///                the mask in their sign          a bit an element (gated: as
///                                                kRecompute)
///   kRecompute   flash attention: Q, K, V,       input of the activation         as kInPlace
///                output, log-sums
///   kRerun       input of the projections        input of the block              as kInPlace
///   kInt8        inputs of the projections and   inputs of the block and of the  normalised input in int8,
///                Q, K, V in int8                 activation in int8              1/deviation
///
/// Every linear keeps its input besides; a tensor kept by two nodes counts once.
enum class MemoryMode { kStore, kInPlace, kRecompute, kRerun, kInt8 };

inline constexpr std::array<MemoryMode, 5> kMemoryModes = {
    MemoryMode::kStore, MemoryMode::kInPlace, MemoryMode::kRecompute, MemoryMode::kRerun, MemoryMode::kInt8};

/// store, in-place, recompute, rerun, int8.
std::string_view memory_mode_name(MemoryMode mode);
/// InputError that lists the names for another text.
MemoryMode parse_memory_mode(std::string_view name);

/// The modes of one transformer layer. The defaults are exact and cost no time.
struct LayerMemory {
  MemoryMode attention = MemoryMode::kRecompute;
  MemoryMode mlp = MemoryMode::kRecompute;
  MemoryMode norm = MemoryMode::kInPlace;

  bool operator==(const LayerMemory&) const = default;
};

/// "recompute" where all three agree, else "attention=rerun mlp=recompute norm=in-place".
std::string describe(const LayerMemory& memory);

}  // namespace gantry::spec
