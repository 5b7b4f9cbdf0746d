// Raw activation and rotation kernels against plain double-precision loops, for every instruction set that this
// processor has.
#include "gantry/kernels/rope/rope_raw.h"
#include "gantry/kernels/swiglu/swiglu_raw.h"
#include "tests/kernels/raw_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

double sigmoid_of(double x) { return 1.0 / (1.0 + std::exp(-x)); }

TEST(SwigluRaw, ForwardMatchesDoubles) {
  for_both_types([]<class T>() {
    for (const std::int64_t n : kLengths) {
      SCOPED_TRACE(n);
      const Doubles input = rounded<T>(normal(kRows * 2 * n, 7, 4.0));
      Doubles expected;
      for (std::int64_t row = 0; row < kRows; ++row) {
        for (std::int64_t i = 0; i < n; ++i) {
          const double a = input[static_cast<std::size_t>(row * 2 * n + i)];
          expected.push_back(a * sigmoid_of(a) * input[static_cast<std::size_t>(row * 2 * n + n + i)]);
        }
      }
      const Guarded<T> gate_up(input);
      for (const auto& version : GANTRY_ISA_VERSIONS(swiglu_forward<T>)) {
        SCOPED_TRACE(base::isa_name(version.isa));
        Guarded<T> z(kRows * n);
        run_rows(version.run, SwigluForwardArgs<T>{gate_up.data(), z.data(), n});
        expect_near(z, expected);
      }
    }
  });
}

TEST(SwigluRaw, BackwardMatchesDoublesAlsoInPlace) {
  for_both_types([]<class T>() {
    for (const std::int64_t n : kLengths) {
      SCOPED_TRACE(n);
      const Doubles input = rounded<T>(normal(kRows * 2 * n, 8, 4.0)), gradient = rounded<T>(normal(kRows * n, 9));
      Doubles expected(input.size());
      for (std::int64_t row = 0; row < kRows; ++row) {
        for (std::int64_t i = 0; i < n; ++i) {
          const auto gate = static_cast<std::size_t>(row * 2 * n + i), up = gate + static_cast<std::size_t>(n);
          const double a = input[gate], s = sigmoid_of(a), d = gradient[static_cast<std::size_t>(row * n + i)];
          expected[gate] = d * input[up] * s * (1 + a * (1 - s));
          expected[up] = d * a * s;
        }
      }
      const Guarded<T> gate_up(input), dz(gradient);
      for (const auto& version : GANTRY_ISA_VERSIONS(swiglu_backward<T>)) {
        SCOPED_TRACE(base::isa_name(version.isa));
        Guarded<T> apart(kRows * 2 * n), in_place(input);
        run_rows(version.run, SwigluBackwardArgs<T>{dz.data(), gate_up.data(), apart.data(), n});
        run_rows(version.run, SwigluBackwardArgs<T>{dz.data(), in_place.data(), in_place.data(), n});
        expect_near(apart, expected);
        expect_near(in_place, expected);
      }
    }
  });
}

template <class T>
void check_rope(std::int64_t half, bool inverse) {
  constexpr std::int64_t kHeads = 3, kPositions = 11, kGap = 5;
  const std::int64_t dim = 2 * half, stride = kHeads * dim + kGap;
  const Doubles angles = normal(kPositions * half, 10, 3.0), input = rounded<T>(normal(kRows * stride, 11));
  const std::vector<std::int64_t> positions{3, 0, 10, 3, 7};
  Doubles cosines, sines, expected = input;
  for (const double angle : angles) {
    cosines.push_back(std::cos(angle));
    sines.push_back(std::sin(angle));
  }
  for (std::int64_t row = 0; row < kRows; ++row) {
    for (std::int64_t head = 0; head < kHeads; ++head) {
      for (std::int64_t i = 0; i < half; ++i) {
        const auto first = static_cast<std::size_t>(row * stride + head * dim + i);
        const std::size_t second = first + static_cast<std::size_t>(half);
        const double angle =
            angles[static_cast<std::size_t>(positions[static_cast<std::size_t>(row)] * half + i)] * (inverse ? -1 : 1);
        expected[first] = input[first] * std::cos(angle) - input[second] * std::sin(angle);
        expected[second] = input[second] * std::cos(angle) + input[first] * std::sin(angle);
      }
    }
  }
  const Guarded<float> cosine(cosines), sine(sines);
  for (const auto& version : GANTRY_ISA_VERSIONS(rope<T>)) {
    SCOPED_TRACE(base::isa_name(version.isa));
    Guarded<T> x(input);
    run_rows(version.run,
             RopeArgs<T>{x.data(), stride, kHeads, dim, positions.data(), cosine.data(), sine.data(), inverse});
    expect_near(x, expected);  // the gaps between rows stay as they were
  }
}

TEST(RopeRaw, RotatesBothWaysAndLeavesGapsAlone) {
  for_both_types([]<class T>() {
    for (const std::int64_t half : {1, 8, 15, 16, 17, 32, 40, 64}) {
      SCOPED_TRACE(half);
      check_rope<T>(half, false);
      check_rope<T>(half, true);
    }
  });
}

}  // namespace
}  // namespace gantry::kernels
