// Packed tensors: bytes, types, strides, threads, and agreement with the plain form.
#include "gantry/kernels/stash/stash.h"

#include "gantry/tensor/live_bytes.h"
#include "tests/kernels/torch_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

TEST(Stash, TakesWhatStashedBytesSays) {
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
    for (const std::int64_t n : {0, 1, 63, 64, 65, 1000}) {
      const at::Tensor x = normal({n}, 1).to(type);
      const tensor::LiveBytes live;
      const Stashed packed = stash(x);
      EXPECT_EQ(live.now(), stashed_bytes(n));
      EXPECT_EQ(live.now(), n + 2 * ((n + 63) / 64));
      EXPECT_EQ(unstash(packed).sizes(), x.sizes());
    }
  }
}

TEST(Stash, ComesBackInItsTypeAndShapeWithinSevenTenthsOfAPercent) {
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
    for (const auto& shape : std::vector<std::vector<std::int64_t>>{{}, {0, 3}, {5, 1, 40}, {129}, {64, 65}}) {
      const at::Tensor x = normal(shape, 3).to(type), back = unstash(stash(x));
      EXPECT_EQ(back.scalar_type(), type);
      EXPECT_EQ(back.sizes(), x.sizes());
      EXPECT_LT(error_of(back, x.to(at::kDouble)), 0.008);
      EXPECT_FALSE(back.requires_grad());
    }
  }
}

TEST(Stash, StridesDoNotMatter) {
  const at::Tensor x = normal({40, 33, 7}, 4).to(at::kFloat);
  for (const at::Tensor& view : {x.transpose(0, 2), x.slice(1, 0, 33, 2), x.select(2, 3), x[0][0][0].expand({3, 50})}) {
    EXPECT_TRUE(at::equal(unstash(stash(view)), unstash(stash(view.contiguous()))));
    EXPECT_TRUE(unstash(stash(view)).is_contiguous());
  }
}

TEST(Stash, AgreesWithThePlainForm) {
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
    at::Tensor x = normal({70, 33}, 5).to(type);
    x[3][5] = NAN;
    x[60][1] = -INFINITY;
    x.narrow(0, 10, 4).zero_();
    x[40].fill_(type == at::kHalf ? 65504.0 : type == at::kBFloat16 ? 0x1.FEp127 : 0x1.fffffep127);
    const Stashed ours = stash(x), plain = stash_reference(x);
    EXPECT_TRUE(at::equal(ours.scales.nan_to_num(-1), plain.scales.nan_to_num(-1)));
    EXPECT_LE((ours.values.to(at::kInt) - plain.values.to(at::kInt)).abs().max().item<int>(), 1);
    EXPECT_EQ(plain.sizes, ours.sizes);
    EXPECT_EQ(plain.type, ours.type);
    const at::Tensor a = unstash(ours), b = unstash_reference(ours);
    EXPECT_EQ(b.scalar_type(), type);
    EXPECT_TRUE(at::equal(a.isnan(), b.isnan()));
    EXPECT_TRUE(at::equal(a.nan_to_num(0), b.nan_to_num(0)));
    EXPECT_EQ(a.isnan().sum().item<std::int64_t>(), 128);  // two groups
  }
}

TEST(Stash, ThreadsDoNotMatter) {
  const at::Tensor x = normal({501, 333}, 6).to(at::kBFloat16);
  const Stashed several = stash(x);
  const at::Tensor restored = unstash(several);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Stashed one = stash(x);
  EXPECT_TRUE(at::equal(unstash(one), restored));
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one.values, several.values) && at::equal(one.scales, several.scales));
}

TEST(Stash, MagnitudesBeyondFp32AreNanInFp64) {
  const at::Tensor x = at::full({70}, 1.0, at::kDouble);
  x[0] = 1e39;
  EXPECT_EQ(unstash(stash(x)).isnan().sum().item<std::int64_t>(), 64);
}

TEST(Stash, RefusesIntegers) {
  EXPECT_MESSAGE(stash(at::zeros({3}, at::kLong)), "stash: expected a floating-point tensor, got Long");
}

}  // namespace
}  // namespace gantry::kernels
