// Tiled and decoding attention against plain double-precision loops, for every instruction set.
#include <algorithm>

#include "gantry/kernels/attention/decode_raw.h"
#include "tests/kernels/attention_problem.h"

namespace gantry::kernels {
namespace {

using namespace testing;

template <class T>
void check_flash(const Case& shape) {
  const Problem p = make_problem<T>(shape);
  const Results expected = reference(p);
  const Stored<T> s(p);
  const FlashShape fs = flash_shape(p);
  const auto forward = GANTRY_ISA_VERSIONS(flash_forward<T>);
  const auto backward = GANTRY_ISA_VERSIONS(flash_backward<T>);
  for (std::size_t i = 0; i < forward.size(); ++i) {
    SCOPED_TRACE(base::isa_name(forward[i].isa));
    Guarded<T> out(s.q.size()), dq(s.q.size()), dk(s.k.size()), dv(s.k.size());
    Guarded<float> lse(kBatch * kHeads * shape.q_length);
    Guarded<float> scratch(flash_forward_scratch(fs)), scratch2(flash_backward_scratch(fs));
    const FlashForwardArgs<T> args{fs,         s.q_view(s.q), s.k_view(s.k), s.k_view(s.v), s.q_view(out),
                                   lse.data(), scratch.data()};
    forward[i].run(args, 0, 4);  // in the middle of a group of heads
    forward[i].run(args, 4, kBatch * kHeads);
    expect_near(out, expected.out);
    for (std::size_t r = 0; r < expected.lse.size(); ++r) {
      const double value = value_of(lse.data()[r]);
      ASSERT_TRUE(value == expected.lse[r] || std::abs(value - expected.lse[r]) < 1e-4) << "row " << r << ": " << value;
    }
    if (shape.q_length == shape.k_length) {
      const Guarded<T> done(expected.out);  // not the kernel's own, whose last bits may differ
      backward[i].run({fs, s.q_view(s.q), s.k_view(s.k), s.k_view(s.v), s.q_view(done), s.q_view(s.dout), lse.data(),
                       s.q_view(dq), s.k_view(dk), s.k_view(dv), scratch2.data()},
                      0, kBatch * kKvHeads);
      expect_near(dq, expected.dq);
      expect_near(dk, expected.dk);
      expect_near(dv, expected.dv);
    }
    EXPECT_TRUE(scratch.intact() && scratch2.intact() && lse.intact());
  }
}

TEST(FlashRaw, LengthsAroundTheTilesMatchDoubles) {
  for (const std::int64_t t : {1, 2, 15, 47, 48, 49, 64, 65, 130}) {
    SCOPED_TRACE(t);
    check_flash<float>({t, t, 16, true});
    check_flash<float>({t, t, 16, false});
  }
}

TEST(FlashRaw, HeadSizesMatchDoublesInBothTypes) {
  for_both_types([]<class T>() {
    for (const std::int64_t dim : {16, 48, 64, 80, 128}) {
      SCOPED_TRACE(dim);
      check_flash<T>({66, 66, dim, true});
    }
  });
}

TEST(FlashRaw, DocumentsAndPaddingHideKeysAndBlindRowsAreZero) {
  for_both_types([]<class T>() {
    check_flash<T>({97, 97, 32, true, true, false});
    check_flash<T>({97, 97, 32, true, false, true});
    check_flash<T>({97, 97, 32, false, false, true});
    check_flash<T>({97, 97, 32, true, true, true});
  });
}

TEST(FlashRaw, FewQueriesAtTheEndOfManyKeys) {
  for_both_types([]<class T>() {
    check_flash<T>({5, 70, 32, true});
    check_flash<T>({49, 128, 64, true, false, true});
  });
}

TEST(FlashRaw, NanInAQueryReachesItsOutputAndItsGradient) {
  Problem p = make_problem<float>({6, 6, 16, true});
  p.q[p.q_at(0, 2, 1)] = std::nan("");
  const Stored<float> s(p);
  const FlashShape fs = flash_shape(p);
  const auto backward = GANTRY_ISA_VERSIONS(flash_backward<float>);
  const auto forward = GANTRY_ISA_VERSIONS(flash_forward<float>);
  for (std::size_t i = 0; i < forward.size(); ++i) {
    SCOPED_TRACE(base::isa_name(forward[i].isa));
    Guarded<float> out(s.q.size()), dq(s.q.size()), dk(s.k.size()), dv(s.k.size()), lse(kBatch * kHeads * 6);
    Guarded<float> scratch(flash_forward_scratch(fs) + flash_backward_scratch(fs));
    forward[i].run({fs, s.q_view(s.q), s.k_view(s.k), s.k_view(s.v), s.q_view(out), lse.data(), scratch.data()}, 0, 12);
    const Guarded<float>& done = out;
    backward[i].run({fs, s.q_view(s.q), s.k_view(s.k), s.k_view(s.v), s.q_view(done), s.q_view(s.dout), lse.data(),
                     s.q_view(dq), s.k_view(dk), s.k_view(dv), scratch.data()},
                    0, 4);
    EXPECT_TRUE(std::isnan(out.data()[p.q_at(0, 2, 1)]));
    EXPECT_TRUE(std::isnan(dq.data()[p.q_at(0, 2, 1)]));
    EXPECT_TRUE(std::isnan(dv.data()[p.k_at(0, 0, 0)]));
    EXPECT_FALSE(std::isnan(out.data()[p.q_at(0, 3, 1)])) << "other queries are not touched";
  }
}

// Without a place for the log-sums they come back from the output's last bits: the gradients are, bit by bit, those of
// the same output with log-sums beside it.
void check_in_output(const Case& shape) {
  const Problem p = make_problem<float>(shape);
  const Stored<float> s(p);
  const FlashShape fs = flash_shape(p);
  const auto forward = GANTRY_ISA_VERSIONS(flash_forward<float>);
  const auto backward = GANTRY_ISA_VERSIONS(flash_backward<float>);
  for (std::size_t i = 0; i < forward.size(); ++i) {
    SCOPED_TRACE(base::isa_name(forward[i].isa));
    Guarded<float> plain(s.q.size()), out(s.q.size()), lse(kBatch * kHeads * shape.q_length);
    Guarded<float> scratch(std::max(flash_forward_scratch(fs), flash_backward_scratch(fs)));
    FlashForwardArgs<float> args{fs,         s.q_view(s.q), s.k_view(s.k), s.k_view(s.v), s.q_view(plain),
                                 lse.data(), scratch.data()};
    forward[i].run(args, 0, kBatch * kHeads);
    args.out = s.q_view(out);
    args.lse = nullptr;
    forward[i].run(args, 0, kBatch * kHeads);
    for (std::int64_t at = 0; at < out.size(); ++at) {
      const double expected = value_of(plain.data()[at]), got = value_of(out.data()[at]);
      const std::int64_t row = at / shape.head_dim, token = row / kHeads;
      const std::int64_t lse_row = (token / shape.q_length * kHeads + row % kHeads) * shape.q_length;
      const bool blind = std::isinf(lse.data()[lse_row + token % shape.q_length]);
      // Where all that a query sees is dropped its output is zero as well.
      const double least = blind || at % shape.head_dim >= 32 ? 0.0 : 1.2e-38;
      const double ulp = at % shape.head_dim < 32 ? std::abs(expected) * 0x1p-23 : 0.0;
      ASSERT_LE(std::abs(got - expected), std::max(ulp, least)) << at;
    }
    Doubles gradients[2];
    for (const bool in_output : {false, true}) {
      Guarded<float> dq(s.q.size()), dk(s.k.size()), dv(s.k.size());
      const Guarded<float>& done = out;
      backward[i].run({fs, s.q_view(s.q), s.k_view(s.k), s.k_view(s.v), s.q_view(done), s.q_view(s.dout),
                       in_output ? nullptr : lse.data(), s.q_view(dq), s.k_view(dk), s.k_view(dv), scratch.data()},
                      0, kBatch * kKvHeads);
      for (const auto* x : {&dq, &dk, &dv}) {
        const Doubles each = x->values();
        gradients[in_output ? 1 : 0].insert(gradients[in_output ? 1 : 0].end(), each.begin(), each.end());
        EXPECT_TRUE(x->intact());
      }
    }
    EXPECT_EQ(gradients[0], gradients[1]);
    EXPECT_TRUE(scratch.intact() && lse.intact() && out.intact());
  }
}

TEST(FlashRaw, LogSumsComeBackFromTheOutputsLastBits) {
  for (const std::int64_t dim : {32, 48, 64}) {
    SCOPED_TRACE(dim);
    check_in_output({1, 1, dim, true});
    check_in_output({66, 66, dim, false});
    check_in_output({97, 97, dim, true, true, true});  // some rows see nothing
    check_in_output({.q_length = 50, .k_length = 50, .head_dim = dim, .causal = true, .dropout = 0.3});
  }
}

// Decoding: the last `tokens` queries of a causal problem, keys in a larger cache, sequence 1 padded on the left.
template <class T>
void check_decode(std::int64_t tokens, std::int64_t length, std::int64_t dim) {
  constexpr std::int64_t kCapacity = 90;
  Problem p = make_problem<T>({tokens, length, dim, true, true});
  const std::vector<std::int64_t> starts{0, length / 3};
  for (std::int64_t t = 0; t < tokens; ++t) {
    p.row_starts[static_cast<std::size_t>(t)] = 0;
    p.row_starts[static_cast<std::size_t>(tokens + t)] = static_cast<std::int32_t>(length / 3);
  }
  const Results expected = reference(p);
  const std::int64_t sequence = kKvHeads * dim;
  Guarded<T> k(kBatch * kCapacity * sequence), v(kBatch * kCapacity * sequence);  // NaN beyond the length
  for (std::int64_t b = 0; b < kBatch; ++b) {
    for (std::int64_t i = 0; i < length * sequence; ++i) {
      k.data()[b * kCapacity * sequence + i] = stored<T>(p.k[static_cast<std::size_t>(b * length * sequence + i)]);
      v.data()[b * kCapacity * sequence + i] = stored<T>(p.v[static_cast<std::size_t>(b * length * sequence + i)]);
    }
  }
  const Guarded<T> q(p.q);
  for (const auto& version : GANTRY_ISA_VERSIONS(decode_attention<T>)) {
    SCOPED_TRACE(base::isa_name(version.isa));
    Guarded<T> out(q.size());
    Guarded<float> scratch(length);
    version.run({q.data(), kHeads * dim, k.data(), v.data(), out.data(), tokens, kHeads, kKvHeads, dim, kCapacity,
                 length, starts.data(), static_cast<float>(p.scale()), scratch.data()},
                0, kBatch * tokens * kHeads);
    expect_near(out, expected.out);
    EXPECT_TRUE(scratch.intact());
  }
}

TEST(DecodeRaw, MatchesDoublesForOddSizes) {
  for_both_types([]<class T>() {
    for (const std::int64_t dim : {8, 16, 17, 64, 80, 100}) {
      SCOPED_TRACE(dim);
      check_decode<T>(1, 1, dim);
      check_decode<T>(1, 37, dim);
      check_decode<T>(4, 90, dim);
    }
  });
}

}  // namespace
}  // namespace gantry::kernels
