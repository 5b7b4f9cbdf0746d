#pragma once
// How work on the four channels of a device slows each other down (Mist, EuroSys '25, section 5.3 and its code): every
// set of two to four busy channels has one slowdown factor a channel, 28 in all.
#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace gantry::cost {

enum class Channel : std::uint8_t { kCompute, kCollective, kCopyIn, kCopyOut };
inline constexpr int kChannels = 4;
std::string_view channel_name(Channel channel);  ///< "compute", "collective", "copy_in", "copy_out"

/// Stand-alone seconds of work on each channel.
using ChannelTimes = std::array<double, kChannels>;

inline constexpr int kFactorCount = 28;

/// Slowdowns >= 1 in the order CGHO, CGH, CGO, CHO, GHO, CG, CH, CO, GH, GO, HO, one value a letter (C compute, G
/// collective, H copy-in, O copy-out).
struct Factors {
  std::array<double, kFactorCount> f;
  Factors() { f.fill(1.0); }
};

/// Sets of busy channels are bit masks: bit c for Channel c. The eleven sets in the order of Factors.
inline constexpr std::array<unsigned, 11> kFactorSets = {15, 7, 11, 13, 14, 3, 5, 9, 6, 10, 12};

/// Index into Factors::f of `channel` while exactly `busy` is busy; -1 where the channel is idle or alone.
int factor_index(unsigned busy, int channel);
/// The slowdown of `channel` while exactly `busy` is busy; 1 where it is alone.
double slowdown(const Factors& factors, unsigned busy, int channel);

/// Seconds until all work is done when it starts together and no channel idles before its own work is done. Times are
/// finite and >= 0; work under 10 ns neither slows others nor is slowed. Grows with every time where each factor is at
/// least that of the same channel in every smaller set; fitted factors need not be so.
double overlap_s(const ChannelTimes& alone_s, const Factors& factors);
/// Many rows: equal to the former bit by bit; with AVX2 the four channels of a row are one vector (2.5 times as fast).
void overlap_s(std::span<const ChannelTimes> alone_s, const Factors& factors, std::span<double> together_s);

/// One measurement: stand-alone seconds of each channel and the seconds of all together.
struct OverlapSample {
  ChannelTimes alone_s{};
  double together_s = 0;
  int per_node = 0;  ///< devices of the collective's group on each node
  int nodes = 0;
};

/// Mean of |predicted - measured| / measured.
double mean_relative_error(std::span<const OverlapSample> samples, const Factors& factors);

struct FitOptions {
  int steps = 20000;
  std::uint64_t seed = 1;
};

/// All 28 factors fitted together: random search on the mean relative error from `start`, one or two factors at a time
/// (f <- 1 + (f - 1 + .02) e^(sN(0,1)) within [1, 50], s from .3 falling to .12, kept if better). Factors of sets that
/// no sample can pass through stay as they are. Deterministic. InputError for times that are negative or not finite.
Factors fit_factors(std::span<const OverlapSample> samples, const Factors& start, const FitOptions& options = {});
/// The published procedure, for comparison: least squares of the seconds for each set on the samples that start with
/// exactly that set busy, all other factors at 1.
Factors fit_factors_stagewise(std::span<const OverlapSample> samples, const FitOptions& options = {});

}  // namespace gantry::cost
