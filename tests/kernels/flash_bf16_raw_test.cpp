// Attention with bf16 products against plain double-precision loops, for every instruction set that has such products.
#include "gantry/kernels/attention/flash_bf16_raw.h"

#include <algorithm>

#include "tests/kernels/attention_problem.h"

namespace gantry::kernels {
namespace {

using namespace testing;
using Mask = Case::Mask;

using Bf16Forward = void (*)(const FlashForwardArgs<Bf16>&, std::int64_t, std::int64_t);
using Bf16Backward = void (*)(const FlashBackwardArgs<Bf16>&, std::int64_t, std::int64_t);

struct Bf16Version {
  base::Isa isa;
  Bf16Forward forward;
  Bf16Backward backward;
};

std::vector<Bf16Version> bf16_versions() {
  std::vector<Bf16Version> usable;
#if defined(__x86_64__)
  if (base::best_isa() >= base::Isa::kAvx512Bf16) {
    usable.push_back({base::Isa::kAvx512Bf16, &avx512_bf16::flash_forward_bf16, &avx512_bf16::flash_backward_bf16});
  }
  if (base::best_isa() >= base::Isa::kAmx) {
    usable.push_back({base::Isa::kAmx, &amx::flash_forward_bf16, &amx::flash_backward_bf16});
  }
#endif
  return usable;
}

class FlashBf16Raw : public ::testing::Test {
 protected:
  void SetUp() override {
    if (bf16_versions().empty()) GTEST_SKIP() << "no bf16 products on " << base::isa_name(base::best_isa());
  }
};

struct Bf16Run {
  Bf16Run(const Problem& p, const Stored<Bf16>& stored)
      : s(stored),
        shape(flash_shape(p)),
        out(s.q.size()),
        dq(s.q.size()),
        dk(s.k.size()),
        dv(s.k.size()),
        lse(kBatch * kHeads * p.shape.q_length),
        scratch(std::max(flash_bf16_forward_scratch(shape), flash_bf16_backward_scratch(shape))),
        dscores(Doubles(static_cast<std::size_t>(lse.size() * p.shape.k_length), 0.0)) {}

  FlashForwardArgs<Bf16> forward() {
    return {shape, s.q_view(s.q), s.k_view(s.k), s.k_view(s.v), s.q_view(out), lse.data(), scratch.data()};
  }
  FlashBackwardArgs<Bf16> backward(const Guarded<Bf16>& done, bool with_dscores = true) {
    return {shape,          s.q_view(s.q),    s.k_view(s.k),  s.k_view(s.v),
            s.q_view(done), s.q_view(s.dout), lse.data(),     s.q_view(dq),
            s.k_view(dk),   s.k_view(dv),     scratch.data(), with_dscores ? dscores.data() : nullptr};
  }
  bool intact() const { return lse.intact() && scratch.intact() && dscores.intact(); }

  const Stored<Bf16>& s;
  FlashShape shape;
  Guarded<Bf16> out, dq, dk, dv;
  Guarded<float> lse, scratch, dscores;
};

// Operands of the second products are rounded to bf16 (2^-9 of each), and the result once more: an element may be off
// by that share of the terms that it sums, which the largest element of the tensor bounds here. All in all the error
// has to stay below one rounding.
void expect_rounded(const char* name, const Guarded<Bf16>& actual, const Doubles& expected) {
  ASSERT_EQ(actual.size(), static_cast<std::int64_t>(expected.size()));
  EXPECT_TRUE(actual.intact()) << name << ": wrote outside its range";
  double largest = 0, norm = 0, error = 0;
  for (const double x : expected) {
    largest = std::max(largest, std::abs(x));
    norm += x * x;
  }
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double got = value_of(actual.data()[i]);
    ASSERT_NEAR(got, expected[i], 0x1p-8 * (std::abs(expected[i]) + largest)) << name << ", element " << i;
    error += (got - expected[i]) * (got - expected[i]);
  }
  EXPECT_LE(std::sqrt(error), 0x1p-8 * std::sqrt(norm)) << name;
}

void expect_log_sums(const Guarded<float>& actual, const Doubles& expected) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (std::isinf(expected[i])) {
      ASSERT_EQ(actual.data()[i], expected[i]) << "log-sum " << i;
    } else {
      ASSERT_NEAR(actual.data()[i], expected[i], 2e-5) << "log-sum " << i;
    }
  }
}

void check_bf16(const Case& shape) {
  const Problem p = make_problem<Bf16>(shape);
  const Results expected = reference(p);
  const Stored<Bf16> s(p);
  const Guarded<Bf16> done(expected.out);
  for (const Bf16Version& version : bf16_versions()) {
    SCOPED_TRACE(base::isa_name(version.isa));
    Bf16Run run(p, s);
    version.forward(run.forward(), 0, 5);
    version.forward(run.forward(), 5, kBatch * kHeads);
    expect_rounded("out", run.out, expected.out);
    expect_log_sums(run.lse, expected.lse);
    version.backward(run.backward(done), 0, 1);
    version.backward(run.backward(done), 1, kBatch * kKvHeads);
    expect_rounded("dq", run.dq, expected.dq);
    expect_rounded("dk", run.dk, expected.dk);
    expect_rounded("dv", run.dv, expected.dv);
    expect_near(run.dscores, expected.dscores);
    EXPECT_TRUE(run.intact());
    Bf16Run without(p, s);
    without.lse = run.lse;
    version.backward(without.backward(done, false), 0, kBatch * kKvHeads);
    EXPECT_EQ(without.dq.values(), run.dq.values()) << "the mask's gradient changes no other";
    EXPECT_EQ(without.dk.values(), run.dk.values());
  }
}

TEST_F(FlashBf16Raw, LengthsAroundTheTilesMatchDoubles) {
  for (const std::int64_t t : {1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 256, 257}) {
    for (const bool causal : {false, true}) {
      SCOPED_TRACE(::testing::Message() << t << ", causal " << causal);
      check_bf16({.q_length = t, .k_length = t, .head_dim = 16, .causal = causal});
      if (t % 2 != 0) check_bf16({.q_length = t, .k_length = t, .head_dim = 16, .causal = causal, .dropout = 0.25});
    }
  }
}

TEST_F(FlashBf16Raw, HeadSizesMatchDoubles) {
  for (const std::int64_t dim : {16, 32, 48, 64, 80, 96, 128, 256}) {
    SCOPED_TRACE(dim);
    check_bf16({.q_length = 66, .k_length = 66, .head_dim = dim, .causal = true, .dropout = dim == 80 ? 0.5 : 0.0});
  }
}

TEST_F(FlashBf16Raw, DifferentNumbersOfQueriesAndKeys) {
  for (const double dropout : {0.0, 0.1}) {
    check_bf16({.q_length = 5, .k_length = 300, .head_dim = 32, .causal = true, .dropout = dropout});
    check_bf16({.q_length = 97, .k_length = 13, .head_dim = 32, .causal = false, .dropout = dropout});
    check_bf16({.q_length = 97, .k_length = 67, .head_dim = 64, .causal = true, .dropout = dropout});
  }
}

TEST_F(FlashBf16Raw, DocumentsAndPaddingHideKeysAndBlindRowsAreZero) {
  for (const double dropout : {0.0, 0.1}) {
    check_bf16(
        {.q_length = 197, .k_length = 197, .head_dim = 32, .causal = true, .documents = true, .dropout = dropout});
    check_bf16(
        {.q_length = 197, .k_length = 197, .head_dim = 32, .causal = false, .padding = true, .dropout = dropout});
    check_bf16({.q_length = 97, .k_length = 97, .head_dim = 32, .causal = true, .documents = true, .padding = true});
  }
}

TEST_F(FlashBf16Raw, MasksMatchDoubles) {
  for (const Mask mask : {Mask::kVisible, Mask::kAdded, Mask::kShared}) {
    for (const double p : {0.0, 0.5}) {
      SCOPED_TRACE(::testing::Message() << "mask " << static_cast<int>(mask) << ", p " << p);
      check_bf16({.q_length = 67, .k_length = 67, .head_dim = 16, .causal = false, .mask = mask, .dropout = p});
      check_bf16({.q_length = 50,
                  .k_length = 170,
                  .head_dim = 48,
                  .causal = true,
                  .padding = true,
                  .mask = mask,
                  .dropout = p});
    }
  }
}

TEST_F(FlashBf16Raw, BlindQueriesAreExactlyZero) {
  const Problem p =
      make_problem<Bf16>({.q_length = 40, .k_length = 70, .head_dim = 16, .causal = false, .documents = true});
  const Stored<Bf16> s(p);
  for (const Bf16Version& version : bf16_versions()) {
    Bf16Run run(p, s);
    version.forward(run.forward(), 0, kBatch * kHeads);
    version.backward(run.backward(run.out), 0, kBatch * kKvHeads);
    for (std::int64_t i = 0; i < kHeads * 16; ++i) {  // query 5
      const std::size_t at = p.q_at(1, 5, 0) + static_cast<std::size_t>(i);
      ASSERT_EQ(value_of(run.out.data()[at]), 0.0) << i;
      ASSERT_EQ(value_of(run.dq.data()[at]), 0.0) << i;
    }
  }
}

TEST_F(FlashBf16Raw, EverythingDroppedIsZeroAndSoAreItsGradients) {
  const Problem p = make_problem<Bf16>({.q_length = 9, .k_length = 9, .head_dim = 16, .causal = true, .dropout = 1});
  const Stored<Bf16> s(p);
  for (const Bf16Version& version : bf16_versions()) {
    Bf16Run run(p, s);
    version.forward(run.forward(), 0, kBatch * kHeads);
    version.backward(run.backward(run.out), 0, kBatch * kKvHeads);
    for (const auto* x : {&run.out, &run.dq, &run.dk, &run.dv}) {
      for (const double value : x->values()) ASSERT_EQ(value, 0.0);
    }
  }
}

// The mask that a kernel used, read off its output: values that are the unit vectors of their keys.
TEST_F(FlashBf16Raw, TheDropoutMaskIsTheExportedOne) {
  const std::int64_t keys = 96;
  Problem p =
      make_problem<Bf16>({.q_length = 130, .k_length = keys, .head_dim = keys, .causal = false, .dropout = 0.3});
  for (std::int64_t b = 0; b < kBatch; ++b) {
    for (std::int64_t j = 0; j < keys; ++j) {
      for (std::int64_t d = 0; d < kKvHeads * keys; ++d) {
        p.v[p.k_at(b, j, 0) + static_cast<std::size_t>(d)] = d % keys == j ? 1 : 0;
      }
    }
  }
  const Stored<Bf16> s(p);
  for (const Bf16Version& version : bf16_versions()) {
    SCOPED_TRACE(base::isa_name(version.isa));
    Bf16Run run(p, s);
    version.forward(run.forward(), 0, kBatch * kHeads);
    for (std::int64_t row = 0; row < kBatch * 130 * kHeads; ++row) {
      const std::int64_t b = row / (130 * kHeads), t = row / kHeads % 130, h = row % kHeads;
      for (std::int64_t j = 0; j < keys; ++j) {
        const double passed = value_of(run.out.data()[p.q_at(b, t, h) + static_cast<std::size_t>(j)]);
        ASSERT_EQ(passed != 0, p.keep[p.score_at(b, h, t, j)] != 0) << b << " " << h << " " << t << " " << j;
      }
    }
  }
}

TEST_F(FlashBf16Raw, NanInAQueryReachesItsOutputAndGradientsAndNoOtherQuery) {
  for (const double dropout : {0.0, 0.5}) {
    Problem p =
        make_problem<Bf16>({.q_length = 40, .k_length = 40, .head_dim = 16, .causal = true, .dropout = dropout});
    p.q[p.q_at(0, 30, 1)] = std::nan("");
    const Stored<Bf16> s(p);
    for (const Bf16Version& version : bf16_versions()) {
      SCOPED_TRACE(base::isa_name(version.isa));
      Bf16Run run(p, s);
      version.forward(run.forward(), 0, kBatch * kHeads);
      version.backward(run.backward(run.out), 0, kBatch * kKvHeads);
      const auto nan_at = [](const Guarded<Bf16>& x, std::size_t i) { return std::isnan(value_of(x.data()[i])); };
      EXPECT_TRUE(nan_at(run.out, p.q_at(0, 30, 1)));
      EXPECT_TRUE(nan_at(run.dq, p.q_at(0, 30, 1)));
      EXPECT_FALSE(nan_at(run.out, p.q_at(0, 31, 1)));
      EXPECT_FALSE(nan_at(run.dq, p.q_at(0, 31, 1)));
      for (std::int64_t j = 0; j <= 30; ++j) {
        EXPECT_TRUE(nan_at(run.dv, p.k_at(0, j, 0))) << j << ": also where it is dropped";
        EXPECT_TRUE(nan_at(run.dk, p.k_at(0, j, 0))) << j;
      }
      EXPECT_FALSE(nan_at(run.dv, p.k_at(1, 0, 0)));
    }
  }
}

TEST_F(FlashBf16Raw, NanAndInfinityInAKeyOrValueReachEveryQueryThatSeesThem) {
  for (const double bad : {std::nan(""), static_cast<double>(INFINITY)}) {
    for (const bool in_value : {false, true}) {
      Problem p = make_problem<Bf16>({.q_length = 40, .k_length = 40, .head_dim = 16, .causal = false, .dropout = 0.5});
      Doubles& to = in_value ? p.v : p.k;
      to[p.k_at(0, 4, 0)] = bad;
      const Stored<Bf16> s(p);
      for (const Bf16Version& version : bf16_versions()) {
        SCOPED_TRACE(base::isa_name(version.isa));
        Bf16Run run(p, s);
        version.forward(run.forward(), 0, kBatch * kHeads);
        for (std::int64_t t = 0; t < 40; ++t) {
          const double seen = value_of(run.out.data()[p.q_at(0, t, 0)]);
          // A key of infinity has the weight one or zero, by the sign of its score.
          if (in_value || std::isnan(bad)) {
            EXPECT_FALSE(std::isfinite(seen)) << t << ", value " << in_value;
          }
          EXPECT_TRUE(std::isfinite(value_of(run.out.data()[p.q_at(1, t, 0)]))) << t;
        }
      }
    }
  }
}

#if defined(__x86_64__)
struct TileConfiguration {
  std::uint8_t bytes[64] = {};
};

TEST_F(FlashBf16Raw, TheCallersTileConfigurationComesBack) {
  if (base::best_isa() < base::Isa::kAmx) GTEST_SKIP() << "no AMX";
  const Problem p = make_problem<Bf16>({.q_length = 20, .k_length = 20, .head_dim = 16, .causal = false});
  const Stored<Bf16> s(p);
  TileConfiguration callers, none, found;
  callers.bytes[0] = 1;   // palette
  callers.bytes[16] = 8;  // tile 0: 8 bytes in each of 3 rows
  callers.bytes[48] = 3;
  for (const bool configured : {true, false}) {
    if (configured) {
      __asm__ volatile("ldtilecfg %0" : : "m"(callers));
    } else {
      __asm__ volatile("tilerelease");
    }
    Bf16Run run(p, s);
    amx::flash_forward_bf16(run.forward(), 0, kBatch * kHeads);
    amx::flash_backward_bf16(run.backward(run.out), 0, kBatch * kKvHeads);
    __asm__ volatile("sttilecfg %0" : "=m"(found));
    EXPECT_EQ(std::memcmp(&found, configured ? &callers : &none, sizeof(found)), 0) << "configured " << configured;
  }
  __asm__ volatile("tilerelease");
}
#endif

}  // namespace
}  // namespace gantry::kernels
