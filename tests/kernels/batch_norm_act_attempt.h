#pragma once
// A batch norm with leaky ReLU as numbers, its formulas in double precision, and one run of the CUDA kernels.
#include <functional>
#include <vector>

#include "gantry/kernels/batch_norm_act/batch_norm_act_cuda.h"
#include "tests/kernels/cuda_support.h"

namespace gantry::kernels::testing::batch_norm {

inline constexpr double kMomentum = 0.1, kEps = 1e-5;

enum class Keep { kOutput, kSideChannels, kNormal };

struct Case {
  cuda::BatchNormActShape shape;
  bool training = true;
  double slope = 0.01;
  Keep keep = Keep::kOutput;

  std::int64_t values() const { return shape.batch * shape.inner; }  // of a channel
  std::int64_t elements() const { return values() * shape.channels; }
};

inline std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Calls body(channel, element) for all elements.
inline void for_elements(const cuda::BatchNormActShape& shape,
                         const std::function<void(std::size_t, std::size_t)>& body) {
  for (std::int64_t i = 0; i < shape.batch * shape.channels * shape.inner; ++i)
    body(index(i / shape.inner % shape.channels), index(i));
}

struct Numbers {
  Doubles x, dz, weight, bias, mean, var, inverse;
  std::vector<std::int64_t> side;

  // Those of `side` are then not inverted.
  void invert() {
    inverse.clear();
    for (const double w : weight) inverse.push_back(1 / w);
    for (const std::int64_t channel : side) inverse[index(channel)] = 0;
  }
};

/// Weights of both signs, at most so near to zero that x can be found again.
template <class T>
Numbers make_numbers(const Case& c) {
  const std::int64_t channels = c.shape.channels;
  Numbers result{rounded<T>(normal(c.elements(), 1, 1.5, 0.3)),
                 rounded<T>(normal(c.elements(), 2)),
                 normal(channels, 3),
                 rounded<float>(normal(channels, 4, 0.3)),
                 rounded<float>(normal(channels, 5, 0.5)),
                 {},
                 {},
                 {}};
  for (double& w : result.weight) w = static_cast<float>(w + std::copysign(0.4, w));
  for (const double v : normal(channels, 6)) result.var.push_back(static_cast<float>(0.5 + v * v));
  for (std::int64_t i = channels / 3; c.keep != Keep::kOutput && i < channels; i += 5) {
    result.side.push_back(i);
    result.weight[index(i)] = i % 2 == 0 ? 0 : 1e-36f;
    if (i % 3 == 0) result.weight[index(i)] = static_cast<float>(1e-4 * result.bias[index(i)]);
  }
  result.invert();
  return result;
}

struct Expected {
  Doubles z, normal, mean, rstd, running_mean, running_var;
};

/// Of each channel.
inline Doubles first_values(const Case& c, const Doubles& x) {
  Doubles result;
  for (std::int64_t k = 0; k < c.shape.channels; ++k) result.push_back(x[index(k * c.shape.inner)]);
  return result;
}

inline Expected expected_forward(const Case& c, const Numbers& numbers) {
  const std::size_t channels = index(c.shape.channels);
  const auto count = static_cast<double>(c.values());
  Expected result{numbers.x, numbers.x, numbers.mean, Doubles(channels, 0.0), numbers.mean, numbers.var};
  Doubles var = numbers.var;
  if (c.training) {
    const Doubles first = first_values(c, numbers.x);  // so that the mean of equal values is one of them
    result.mean = first, var.assign(channels, 0);
    for_elements(c.shape, [&](std::size_t k, std::size_t i) { result.mean[k] += (numbers.x[i] - first[k]) / count; });
    for_elements(c.shape,
                 [&](std::size_t k, std::size_t i) { var[k] += std::pow(numbers.x[i] - result.mean[k], 2) / count; });
    for (std::size_t k = 0; k < channels; ++k) {
      result.running_mean[k] += kMomentum * (result.mean[k] - numbers.mean[k]);
      result.running_var[k] += kMomentum * (var[k] * count / (count - 1) - numbers.var[k]);
    }
  }
  for (std::size_t k = 0; k < channels; ++k) result.rstd[k] = 1 / std::sqrt(var[k] + kEps);
  for_elements(c.shape, [&](std::size_t k, std::size_t i) {
    result.normal[i] = (numbers.x[i] - result.mean[k]) * result.rstd[k];
    const double y = result.normal[i] * numbers.weight[k] + numbers.bias[k];
    result.z[i] = y < 0 ? y * c.slope : y;
  });
  return result;
}

struct Gradients {
  Doubles dx, dweight, dbias;
};

/// From xhat, z of which only the sign counts, and 1 / deviation.
inline Gradients expected_backward(const Case& c, const Numbers& numbers, const Doubles& normal, const Doubles& z,
                                   const Doubles& rstd) {
  const auto count = static_cast<double>(c.values());
  Gradients result{numbers.dz, Doubles(index(c.shape.channels), 0.0), Doubles(index(c.shape.channels), 0.0)};
  for_elements(c.shape, [&](std::size_t k, std::size_t i) {
    if (z[i] < 0) result.dx[i] *= c.slope;
    result.dweight[k] += result.dx[i] * normal[i];
    result.dbias[k] += result.dx[i];
  });
  for_elements(c.shape, [&](std::size_t k, std::size_t i) {
    if (c.training) result.dx[i] -= (result.dbias[k] + normal[i] * result.dweight[k]) / count;
    result.dx[i] *= numbers.weight[k] * rstd[k];
  });
  return result;
}

/// One forward and one backward pass in T, the latter from what the former has made.
template <class T>
struct Attempt {
  Attempt(const Case& of, const Numbers& from)
      : c(of),
        columns(from.side),
        side_count(c.keep == Keep::kSideChannels ? std::ssize(columns) : 0),
        x(from.x),
        dz(from.dz),
        z(c.elements()),
        normal(c.elements()),
        side(c.values() * side_count),
        dx(c.elements()),
        weight(from.weight),
        bias(from.bias),
        inverse(from.inverse),
        running_mean(from.mean),
        running_var(from.var),
        mean(c.shape.channels),
        rstd(c.shape.channels),
        dweight(c.shape.channels),
        dbias(c.shape.channels),
        partial(cuda::batch_norm_act_partial(c.shape)) {}

  cuda::BatchNormActForwardArgs<T> forward() {
    return {.x = x.data(),
            .weight = weight.data(),
            .bias = bias.data(),
            .running_mean = running_mean.data(),
            .running_var = running_var.data(),
            .z = z.data(),
            .mean = mean.data(),
            .rstd = rstd.data(),
            .normal = c.keep == Keep::kNormal ? normal.data() : nullptr,
            .side_channels = side_count == 0 ? nullptr : columns.data(),
            .side = side_count == 0 ? nullptr : side.data(),
            .side_count = side_count,
            .shape = c.shape,
            .training = c.training,
            .momentum = static_cast<float>(kMomentum),
            .eps = static_cast<float>(kEps),
            .slope = static_cast<float>(c.slope)};
  }
  cuda::BatchNormActBackwardArgs<T> backward() {
    return {.dz = dz.data(),
            .z = z.data(),
            .normal = c.keep == Keep::kNormal ? normal.data() : nullptr,
            .rstd = rstd.data(),
            .weight = weight.data(),
            .bias = bias.data(),
            .inverse = c.keep == Keep::kNormal ? nullptr : inverse.data(),
            .side_channels = side_count == 0 ? nullptr : columns.data(),
            .side = side_count == 0 ? nullptr : side.data(),
            .side_count = side_count,
            .dx = dx.data(),
            .dweight = dweight.data(),
            .dbias = dbias.data(),
            .shape = c.shape,
            .training = c.training,
            .slope = static_cast<float>(c.slope)};
  }
  void run_forward() { ASSERT_EQ(cuda::batch_norm_act_forward(forward(), partial.data(), nullptr), cudaSuccess); }
  void run_backward() { ASSERT_EQ(cuda::batch_norm_act_backward(backward(), partial.data(), nullptr), cudaSuccess); }

  // Elements of the side channels, from all.
  Doubles side_of(const Doubles& all) const {
    Doubles result;
    for (std::int64_t row = 0; row < c.shape.batch * side_count; ++row) {
      const std::int64_t channel = columns[index(row % side_count)];
      const std::int64_t first = (row / side_count * c.shape.channels + channel) * c.shape.inner;
      for (std::int64_t i = 0; i < c.shape.inner; ++i) result.push_back(all[index(first + i)]);
    }
    return result;
  }
  // xhat, as backward has to find it in what is kept.
  Doubles recovered(const Numbers& numbers) const {
    if (c.keep == Keep::kNormal) return normal.values();
    Doubles result = z.values();
    for_elements(c.shape, [&](std::size_t k, std::size_t i) {
      const double y = result[i] < 0 ? result[i] / c.slope : result[i];
      result[i] = (y - numbers.bias[k]) / numbers.weight[k];
    });
    const Doubles kept = side.values();
    for (std::size_t j = 0; j < kept.size(); ++j) {
      const std::size_t inner = index(c.shape.inner), count = index(side_count), row = j / inner;
      const std::size_t channel = index(columns[row % count]);
      result[(row / count * index(c.shape.channels) + channel) * inner + j % inner] = kept[j];
    }
    return result;
  }
  bool intact() const { return partial.intact() && mean.intact() && rstd.intact() && side.intact() && normal.intact(); }

  Case c;
  std::vector<std::int64_t> columns;
  std::int64_t side_count;
  Guarded<T> x, dz, z, normal, side, dx;
  Guarded<float> weight, bias, inverse, running_mean, running_var, mean, rstd, dweight, dbias, partial;
};

}  // namespace gantry::kernels::testing::batch_norm
