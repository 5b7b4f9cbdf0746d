#include "gantry/spec/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace gantry::spec {
namespace {

std::vector<double> plain_inverse(double theta, std::int64_t dim) {
  std::vector<double> inverse(static_cast<std::size_t>(dim / 2));
  for (std::size_t i = 0; i < inverse.size(); ++i) {
    // The exponent is rounded to fp32 first, as in the implementations that models are trained with.
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dim);
    inverse[i] = 1.0 / static_cast<double>(std::pow(static_cast<float>(theta), exponent));
  }
  return inverse;
}

void scale_llama3(std::vector<double>& inverse, const RopeConfig& rope, std::int64_t original) {
  const double low_wavelength = static_cast<double>(original) / rope.low_freq_factor;
  const double high_wavelength = static_cast<double>(original) / rope.high_freq_factor;
  for (double& value : inverse) {
    const double wavelength = 2 * std::numbers::pi / value;
    if (wavelength < high_wavelength) continue;
    if (wavelength > low_wavelength) {
      value /= rope.factor;
      continue;
    }
    const double smooth = (static_cast<double>(original) / wavelength - rope.low_freq_factor) /
                          (rope.high_freq_factor - rope.low_freq_factor);
    value = (1 - smooth) * value / rope.factor + smooth * value;
  }
}

double yarn_mscale(double scale, double mscale) { return scale <= 1 ? 1.0 : 0.1 * mscale * std::log(scale) + 1.0; }

float scale_yarn(std::vector<double>& inverse, const RopeConfig& rope, std::int64_t dim, std::int64_t original) {
  const auto correction = [&](double rotations) {
    return static_cast<double>(dim) * std::log(static_cast<double>(original) / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  double low = correction(rope.beta_fast);
  double high = correction(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high) high += 0.001;
  for (std::size_t i = 0; i < inverse.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    inverse[i] = inverse[i] / rope.factor * ramp + inverse[i] * (1 - ramp);
  }
  if (rope.attention_factor > 0) return static_cast<float>(rope.attention_factor);
  if (rope.mscale > 0 && rope.mscale_all_dim > 0) {
    return static_cast<float>(yarn_mscale(rope.factor, rope.mscale) / yarn_mscale(rope.factor, rope.mscale_all_dim));
  }
  return static_cast<float>(yarn_mscale(rope.factor, 1.0));
}

}  // namespace

RopeFrequencies rope_frequencies(const ModelConfig& config, std::int64_t sequence_length) {
  const RopeConfig& rope = config.rope;
  const std::int64_t dim = config.head_dim;
  const std::int64_t original = rope.original_max_positions > 0 ? rope.original_max_positions : config.max_positions;
  double theta = rope.theta;
  if (rope.type == RopeType::kDynamic && sequence_length > config.max_positions && dim > 2) {
    const double stretch =
        rope.factor * static_cast<double>(sequence_length) / static_cast<double>(config.max_positions);
    theta *= std::pow(stretch - (rope.factor - 1), static_cast<double>(dim) / static_cast<double>(dim - 2));
  }
  std::vector<double> inverse = plain_inverse(theta, dim);
  RopeFrequencies result;
  if (rope.type == RopeType::kLinear) {
    for (double& value : inverse) value /= rope.factor;
  } else if (rope.type == RopeType::kLlama3) {
    scale_llama3(inverse, rope, original);
  } else if (rope.type == RopeType::kYarn) {
    result.attention_factor = scale_yarn(inverse, rope, dim, original);
  }
  result.inverse.assign(inverse.begin(), inverse.end());
  return result;
}

}  // namespace gantry::spec
