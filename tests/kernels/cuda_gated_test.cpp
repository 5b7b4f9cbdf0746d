// CUDA gated activations, run in the emulator, against double precision.
#include "gantry/kernels/mlp/gated_cuda.h"
#include "tests/kernels/cuda_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

struct Expected {
  Doubles z, dgate_up;
};

Expected expected_of(Activation kind, const Doubles& gate_up, const Doubles& dz, std::size_t n) {
  Expected e{Doubles(dz.size()), Doubles(gate_up.size())};
  for (std::size_t i = 0; i < dz.size(); ++i) {
    const std::size_t gate = i / n * 2 * n + i % n, up = gate + n;
    const double x = gate_up[gate], one = 1;
    double value = 0, slope = 0;
    activation_forward_fp64({kind, SideFlag::kNone, &x, &value, nullptr}, 0, 1);
    activation_exact_backward_fp64({kind, &x, &one, &slope, nullptr}, 0, 1);
    e.z[i] = value * gate_up[up];
    e.dgate_up[gate] = dz[i] * gate_up[up] * slope;
    e.dgate_up[up] = dz[i] * value;
  }
  return e;
}

TEST(CudaGated, ForwardAndBackwardMatchDoublesAlsoInPlace) {
  for_all_types([]<class T>() {
    for (const std::int64_t n : {1, 33, 300}) {
      const std::int64_t rows = 3;
      const Doubles gate_up = rounded<T>(normal(rows * 2 * n, 1, 2.0)), dz = rounded<T>(normal(rows * n, 2));
      for (const Activation kind :
           {Activation::kGeluErf, Activation::kGeluTanh, Activation::kSilu, Activation::kQuickGelu}) {
        SCOPED_TRACE(::testing::Message() << "activation " << static_cast<int>(kind) << ", n " << n);
        const Expected e = expected_of(kind, gate_up, dz, static_cast<std::size_t>(n));
        for_orders([&] {
          const Guarded<T> input(gate_up);
          Guarded<T> z(rows * n), inputs(gate_up), gradients(dz);
          ASSERT_EQ(cuda::gated_forward<T>({kind, input.data(), z.data(), n}, rows, nullptr), cudaSuccess);
          expect_near(z, e.z, 0.1);
          // Gradients over the inputs, z over dz.
          ASSERT_EQ(cuda::gated_backward<T>({kind, inputs.data(), gradients.data(), inputs.data(), gradients.data(), n},
                                            rows, nullptr),
                    cudaSuccess);
          expect_near(inputs, e.dgate_up, 0.1);
          expect_near(gradients, e.z, 0.1);
        });
      }
    }
  });
}

}  // namespace
}  // namespace gantry::kernels
