#include "gantry/cost/interference.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "gantry/base/check.h"
#include "gantry/base/isa.h"

namespace gantry::cost {
namespace {

/// Shorter work counts as none (the artifact's threshold); it is added to the total unslowed.
constexpr double kNothing_s = 1e-8;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kSets = 1 << kChannels;

unsigned busy_channels(const double* x) {
  unsigned busy = 0;
  for (int c = 0; c < kChannels; ++c) busy |= static_cast<unsigned>(x[c] > kNothing_s) << c;
  return busy;
}

/// kFactorIndices[set][channel]: index into Factors::f, -1 where nothing is slowed.
using FactorIndices = std::array<std::array<std::int8_t, kChannels>, kSets>;

constexpr FactorIndices make_factor_indices() {
  FactorIndices table{};
  for (auto& row : table) row.fill(-1);
  int next = 0;
  for (const unsigned set : kFactorSets) {
    for (int c = 0; c < kChannels; ++c) {
      if ((set >> c & 1) != 0) table[set][static_cast<std::size_t>(c)] = static_cast<std::int8_t>(next++);
    }
  }
  return table;
}
constexpr FactorIndices kFactorIndices = make_factor_indices();

using Vec = double __attribute__((vector_size(sizeof(double) * kChannels)));
using VecBits = std::int64_t __attribute__((vector_size(sizeof(double) * kChannels)));

/// Rows of numbers that make one phase free of branches: elapsed = min(x * scale + offset), x -= elapsed / divisor.
/// Idle channels never give the minimum and lose nothing.
struct PhaseTable {
  struct Row {
    Vec scale, offset, divisor;
  };
  Row rows[kSets];

  explicit PhaseTable(const Factors& factors) {
    for (unsigned set = 0; set < kSets; ++set) {
      for (int c = 0; c < kChannels; ++c) {
        const bool busy = (set >> c & 1) != 0;
        rows[set].scale[c] = busy ? slowdown(factors, set, c) : 0.0;
        rows[set].offset[c] = busy ? 0.0 : kInfinity;
        rows[set].divisor[c] = busy ? rows[set].scale[c] : kInfinity;
      }
    }
  }
};

/// The same operations on the same numbers as overlap_s of one row, so the results are equal bit by bit.
__attribute__((target("avx2"))) void overlap_rows(std::span<const ChannelTimes> alone_s, const Factors& factors,
                                                  std::span<double> together_s) {
  const PhaseTable table(factors);
  for (std::size_t i = 0; i < alone_s.size(); ++i) {
    Vec x = {alone_s[i][0], alone_s[i][1], alone_s[i][2], alone_s[i][3]};
    unsigned busy = busy_channels(alone_s[i].data());
    double total = 0;
    while ((busy & (busy - 1)) != 0) {  // two or more
      const PhaseTable::Row& row = table.rows[busy];
      const Vec y = x * row.scale + row.offset;
      const double elapsed = std::min(std::min(y[0], y[2]), std::min(y[1], y[3]));
      total += elapsed;
      const Vec rest = x - elapsed / row.divisor;
      x = y == elapsed ? Vec{} : rest;
      const VecBits bits = (x > kNothing_s) & VecBits{1, 2, 4, 8};
      busy = static_cast<unsigned>((bits[0] | bits[2]) | (bits[1] | bits[3]));
    }
    together_s[i] = total + ((x[0] + x[1]) + (x[2] + x[3]));
  }
}

}  // namespace

std::string_view channel_name(Channel channel) {
  switch (channel) {
    case Channel::kCompute: return "compute";
    case Channel::kCollective: return "collective";
    case Channel::kCopyIn: return "copy_in";
    case Channel::kCopyOut: return "copy_out";
  }
  GANTRY_UNREACHABLE();
}

int factor_index(unsigned busy, int channel) {
  return kFactorIndices[busy & (kSets - 1)][static_cast<std::size_t>(channel)];
}

double slowdown(const Factors& factors, unsigned busy, int channel) {
  const int index = factor_index(busy, channel);
  return index < 0 ? 1.0 : factors.f[static_cast<std::size_t>(index)];
}

double overlap_s(const ChannelTimes& alone_s, const Factors& factors) {
  double x[kChannels] = {alone_s[0], alone_s[1], alone_s[2], alone_s[3]};
  unsigned busy = busy_channels(x);
  double total = 0;
  while (std::popcount(busy) >= 2) {
    const auto& indices = kFactorIndices[busy];
    double slowed[kChannels];
    double elapsed = kInfinity;
    for (std::size_t c = 0; c < kChannels; ++c) {
      if (indices[c] < 0) continue;
      slowed[c] = x[c] * factors.f[static_cast<std::size_t>(indices[c])];
      elapsed = std::min(elapsed, slowed[c]);
    }
    total += elapsed;
    for (std::size_t c = 0; c < kChannels; ++c) {
      if (indices[c] < 0) continue;
      x[c] = slowed[c] == elapsed ? 0.0 : x[c] - elapsed / factors.f[static_cast<std::size_t>(indices[c])];
    }
    busy = busy_channels(x);
  }
  return total + ((x[0] + x[1]) + (x[2] + x[3]));
}

void overlap_s(std::span<const ChannelTimes> alone_s, const Factors& factors, std::span<double> together_s) {
  GANTRY_CHECK(alone_s.size() == together_s.size(), "overlap_s: {} rows but room for {} results", alone_s.size(),
               together_s.size());
  // Without four-wide vectors the table gains nothing over single rows.
  constexpr std::size_t kWorthATable = 32;
  if (alone_s.size() >= kWorthATable && base::isa() >= base::Isa::kAvx2) {
    overlap_rows(alone_s, factors, together_s);
    return;
  }
  for (std::size_t i = 0; i < alone_s.size(); ++i) together_s[i] = overlap_s(alone_s[i], factors);
}

double mean_relative_error(std::span<const OverlapSample> samples, const Factors& factors) {
  if (samples.empty()) return 0;
  double sum = 0;
  for (const auto& sample : samples) {
    sum += std::abs(overlap_s(sample.alone_s, factors) - sample.together_s) / sample.together_s;
  }
  return sum / static_cast<double>(samples.size());
}

}  // namespace gantry::cost
