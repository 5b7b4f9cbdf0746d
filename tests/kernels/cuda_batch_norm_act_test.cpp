// CUDA batch norm with leaky ReLU, run in the emulator, against its formulas in double precision.
#include "gantry/kernels/batch_norm_act/batch_norm_act_cuda.h"
#include "tests/kernels/batch_norm_act_attempt.h"

namespace gantry::kernels {
namespace {

using namespace testing;
using namespace testing::batch_norm;

// `spread`: how far the values' size is above their deviation.
template <class T>
void check_forward(const Attempt<T>& run, const Expected& expected, double spread = 1.0) {
  expect_near(run.z, expected.z, 4.0 * spread);
  expect_near(run.mean, expected.mean, spread);
  expect_near(run.rstd, expected.rstd);
  expect_near(run.running_mean, expected.running_mean, spread);
  expect_near(run.running_var, expected.running_var);
  if (run.c.keep == Keep::kNormal) expect_near(run.normal, expected.normal, 4.0 * spread);
  if (run.side_count != 0) expect_near(run.side, run.side_of(expected.normal), 4.0 * spread);
  EXPECT_TRUE(run.intact());
}

template <class T>
void check_backward(const Attempt<T>& run, const Gradients& expected, double scale) {
  expect_near(run.dx, expected.dx, scale);
  const double sums = std::sqrt(static_cast<double>(run.c.values()));
  expect_near(run.dweight, expected.dweight, scale * sums);
  expect_near(run.dbias, expected.dbias, scale * sums);
  EXPECT_TRUE(run.intact());
}

template <class T>
void check(const Case& c) {
  const auto& [batch, channels, inner] = c.shape;
  SCOPED_TRACE(::testing::Message() << batch << " x " << channels << " x " << inner << (c.training ? "" : ", eval")
                                    << ", slope " << c.slope << ", keeps " << static_cast<int>(c.keep));
  const Numbers numbers = make_numbers<T>(c);
  const Expected expected = expected_forward(c, numbers);
  Doubles dx, dweight;
  for_orders([&] {
    Attempt<T> run(c, numbers);
    run.run_forward();
    check_forward(run, expected);
    run.run_backward();
    const Doubles z = run.z.values();
    check_backward(run, expected_backward(c, numbers, run.recovered(numbers), z, run.rstd.values()), 4.0);
    if (std::is_same_v<T, float>) {  // nor is anything lost by what is kept
      check_backward(run, expected_backward(c, numbers, expected.normal, z, expected.rstd), 20.0);
    }
    if (dx.empty()) dx = run.dx.values(), dweight = run.dweight.values();
    EXPECT_EQ(run.dx.values(), dx) << "the order of threads shows";
    EXPECT_EQ(run.dweight.values(), dweight);
  });
}

// Channels narrower than a warp, as wide, wider, and wider than a warp takes at a time.
constexpr cuda::BatchNormActShape kShapes[] = {{7, 5, 1},   {33, 1, 1},   {5, 33, 1},  {3, 64, 1},
                                               {4, 3, 7},   {3, 1, 31},   {2, 3, 32},  {3, 2, 33},
                                               {2, 2, 577}, {1, 3, 1100}, {3, 1, 2049}};

TEST(CudaBatchNormAct, AllShapesMatchDoublePrecision) {
  for_all_types([]<class T>() {
    for (const cuda::BatchNormActShape& shape : kShapes) check<T>({shape});
  });
}

// Several blocks a channel, then more channels than that allows.
TEST(CudaBatchNormAct, ManyValuesAndManyChannels) {
  check<float>({{1500, 3, 1}});
  check<float>({{301, 2, 9}, true, 0.01, Keep::kSideChannels});
  check<float>({{33, 2, 1025}});
  check<Bf16>({{70, 3, 40}});
  check<float>({{17, 1030, 32}});
  EXPECT_EQ(cuda::batch_norm_act_partial({1500, 3, 1}), 12 * 3 * 3);
  EXPECT_EQ(cuda::batch_norm_act_partial({33, 2, 1025}), 9 * 2 * 3);
  EXPECT_EQ(cuda::batch_norm_act_partial({17, 1030, 32}), 1030 * 3);
}

TEST(CudaBatchNormAct, TrainingAndEvalWithEverySlope) {
  for_all_types([]<class T>() {
    for (const bool training : {true, false}) {
      for (const double slope : {0.01, 0.5, 1.0, 2.0}) {
        check<T>({{6, 5, 3}, training, slope});
        check<T>({{5, 3, 35}, training, slope});
      }
    }
  });
}

TEST(CudaBatchNormAct, ChannelsThatAreNotInvertedAreRight) {
  for_all_types([]<class T>() {
    for (const Keep keep : {Keep::kSideChannels, Keep::kNormal}) {
      for (const bool training : {true, false}) {
        for (const std::int64_t inner : {1, 7, 40}) check<T>({{6, 17, inner}, training, 0.01, keep});
        check<T>({{9, 1, 3}, training, 0.5, keep});
      }
    }
  });
}

TEST(CudaBatchNormAct, ResultsMayOverwriteWhatTheyAreMadeOf) {
  for (const Keep keep : {Keep::kOutput, Keep::kSideChannels, Keep::kNormal}) {
    for (const std::int64_t inner : {3, 50}) {
      const Case c{{6, 17, inner}, true, 0.01, keep};
      const Numbers numbers = make_numbers<float>(c);
      for_orders([&] {
        Attempt<float> apart(c, numbers), run(c, numbers);
        apart.run_forward(), apart.run_backward();
        auto forward = run.forward();
        forward.z = run.x.data();
        ASSERT_EQ(cuda::batch_norm_act_forward(forward, run.partial.data(), nullptr), cudaSuccess);
        EXPECT_EQ(run.x.values(), apart.z.values());
        for (float* place : {run.dz.data(), run.x.data()}) {
          auto backward = run.backward();
          backward.z = run.x.data();
          backward.dx = place;
          ASSERT_EQ(cuda::batch_norm_act_backward(backward, run.partial.data(), nullptr), cudaSuccess);
          EXPECT_EQ(place == run.x.data() ? run.x.values() : run.dz.values(), apart.dx.values());
          run.dz = apart.dz;
        }
      });
    }
  }
}

TEST(CudaBatchNormAct, RunningStatisticsMayBeLeftOutAndStayInEval) {
  const Case c{{6, 5, 3}};
  const Numbers numbers = make_numbers<float>(c);
  Attempt<float> run(c, numbers), other(c, numbers);
  auto args = run.forward();
  args.running_mean = args.running_var = nullptr;
  ASSERT_EQ(cuda::batch_norm_act_forward(args, run.partial.data(), nullptr), cudaSuccess);
  other.run_forward();
  EXPECT_EQ(run.z.values(), other.z.values());
  EXPECT_NE(other.running_mean.values(), numbers.mean);
  run.c.training = false;
  run.run_forward();
  EXPECT_TRUE(run.running_mean.values() == numbers.mean && run.running_var.values() == numbers.var);
}

// ---- extremes

// Runs both passes on changed numbers and compares forward; the rest is for `body`.
template <class T>
void with_numbers(const Case& c, const std::function<void(Numbers&)>& change, double spread,
                  const std::function<void(const Attempt<T>&, const Expected&)>& body) {
  Numbers numbers = make_numbers<T>(c);
  change(numbers);
  numbers.x = rounded<T>(numbers.x), numbers.weight = rounded<float>(numbers.weight);
  numbers.invert();
  const Expected expected = expected_forward(c, numbers);
  for_orders([&] {
    Attempt<T> run(c, numbers);
    run.run_forward();
    if (spread > 0) check_forward(run, expected, spread);
    run.run_backward();
    body(run, expected);
  });
}

TEST(CudaBatchNormAct, LargeOffsetsAndOutliersDoNotCancel) {
  for (const std::int64_t inner : {1, 9, 60}) {
    const Case c{{150, 3, inner}};
    const auto finite = [](const auto& run, const Expected&) {
      for (const double dx : run.dx.values()) ASSERT_TRUE(std::isfinite(dx));
    };
    with_numbers<float>(
        c,
        [](Numbers& n) {
          for (double& x : n.x) x += 1000;
        },
        30, finite);
    with_numbers<float>(
        c, [](Numbers& n) { n.x[0] = 1e4; }, 30, finite);
  }
}

// Deviation 0: everything is the bias, and what is no deviation is not made one by roundings.
TEST(CudaBatchNormAct, ConstantChannels) {
  for (const double constant : {0.0, 0.1, -3e4, 1e25}) {
    for (const std::int64_t inner : {1, 40}) {
      const Case c{{37, 3, inner}};
      const auto set = [&](Numbers& n) {
        for_elements(c.shape, [&](std::size_t k, std::size_t i) {
          if (k == 1) n.x[i] = constant;
        });
      };
      with_numbers<float>(c, set, 0, [&](const Attempt<float>& run, const Expected& expected) {
        expect_near(run.z, expected.z, 4.0);
        EXPECT_NEAR(run.rstd.data()[1], 1 / std::sqrt(kEps), 1e-3);
        EXPECT_EQ(run.mean.data()[1], static_cast<float>(constant));
        for (const double dx : run.dx.values()) ASSERT_TRUE(std::isfinite(dx));
      });
    }
  }
}

TEST(CudaBatchNormAct, HugeAndTinyValues) {
  for (const bool training : {true, false}) {
    const auto z_matches = [](const auto& run, const Expected& expected) {
      using T = std::remove_cvref_t<decltype(*run.z.data())>;
      expect_same(run.z, Guarded<T>(expected.z), 4 * kRounding<T>, 4e-5);
      expect_near(run.rstd, expected.rstd, 0);
    };
    const Case c{{37, 3, 7}, training};
    for (const double scale : {1e17, 1e-17}) {
      const auto scaled = [&](Numbers& n) {
        for (double& x : n.x) x *= scale;
      };
      with_numbers<float>(c, scaled, 0, z_matches);
      with_numbers<Bf16>(c, scaled, 0, z_matches);
    }
    with_numbers<Fp16>(
        c, [](Numbers& n) { n.x[5] = 65504, n.x[30] = -65504; }, 0, z_matches);
  }
}

// NaN and infinity spoil their channel, in eval their element.
TEST(CudaBatchNormAct, OddNumbersStayInTheirChannel) {
  for_all_types([]<class T>() {
    for (const double odd : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
      for (const bool training : {true, false}) {
        for (const std::int64_t inner : {1, 5, 34}) {
          const Case c{{40, 3, inner}, training};
          const std::size_t place = index(17 * 3 * inner + inner);  // in channel 1
          with_numbers<T>(
              c, [&](Numbers& n) { n.x[place] = odd; }, 0,
              [&](const Attempt<T>& run, const Expected& expected) {
                expect_same(run.z, Guarded<T>(expected.z), 4 * kRounding<T>, 1e-4);
                for_elements(c.shape, [&](std::size_t k, std::size_t i) {
                  const bool spoilt = std::isnan(value_of(run.dx.data()[i]));
                  ASSERT_EQ(spoilt, training && k == 1) << i;
                });
                for (std::size_t k = 0; k < 3; ++k) {
                  ASSERT_EQ(std::isfinite(run.dweight.data()[k]), k != 1);
                  ASSERT_EQ(std::isfinite(run.dbias.data()[k]), true);
                }
              });
        }
      }
    }
  });
}

TEST(CudaBatchNormAct, WithoutElementsGradientsOfParametersAreZero) {
  constexpr cuda::BatchNormActShape kEmpty[] = {{0, 5, 3}, {0, 5, 40}, {4, 5, 0}};
  for (const cuda::BatchNormActShape& shape : kEmpty) {
    const Case c{shape};
    Attempt<float> run(c, make_numbers<float>(c));
    run.run_forward();
    run.run_backward();
    EXPECT_EQ(run.dweight.values(), Doubles(5, 0.0));
    EXPECT_EQ(run.dbias.values(), Doubles(5, 0.0));
  }
  const Case none{{4, 0, 3}};
  Attempt<float> run(none, make_numbers<float>(none));
  run.run_forward();
  run.run_backward();
}

TEST(CudaBatchNormAct, WhatHasNoResultIsRefused) {
  const auto refused = [](const Case& c, const std::function<void(cuda::BatchNormActForwardArgs<float>&)>& change) {
    Attempt<float> run(c, make_numbers<float>(c));
    auto args = run.forward();
    change(args);
    return cuda::batch_norm_act_forward(args, run.partial.data(), nullptr) == cudaErrorInvalidValue;
  };
  const Case training{{4, 3, 5}}, eval{{4, 3, 5}, false}, one{{1, 3, 1}};
  EXPECT_FALSE(refused(training, [](auto&) {}));
  EXPECT_FALSE(refused({{1, 3, 1}, false}, [](auto&) {}));
  EXPECT_TRUE(refused(one, [](auto&) {}));
  EXPECT_TRUE(refused(training, [](auto& args) { args.slope = 0; }));
  EXPECT_TRUE(refused(training, [](auto& args) { args.slope = std::nanf(""); }));
  EXPECT_TRUE(refused(training, [](auto& args) { args.rstd = nullptr; }));
  EXPECT_TRUE(refused(training, [](auto& args) { args.running_var = nullptr; }));
  EXPECT_TRUE(refused(eval, [](auto& args) { args.running_mean = args.running_var = nullptr; }));
  Attempt<float> run(training, make_numbers<float>(training));
  auto args = run.backward();
  args.slope = -1;
  EXPECT_EQ(cuda::batch_norm_act_backward(args, run.partial.data(), nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace gantry::kernels
