// The raw loss kernel against plain double-precision loops, for every instruction set that this processor has.
#include "gantry/kernels/cross_entropy/cross_entropy_raw.h"

#include "tests/kernels/raw_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

struct Terms {
  double smoothing = 0, z = 0;
};

struct Expected {
  Doubles losses, gradients;
};

Expected cross_entropy_of(const Doubles& logits, const std::vector<std::int64_t>& labels, std::int64_t vocab,
                          double scale, const Terms& terms) {
  Expected result;
  for (std::size_t row = 0; row < labels.size(); ++row) {
    const double* x = logits.data() + static_cast<std::int64_t>(row) * vocab;
    double peak = x[0], sum = 0, mean = 0;
    for (std::int64_t i = 0; i < vocab; ++i) peak = std::max(peak, x[i]);
    for (std::int64_t i = 0; i < vocab; ++i) sum += std::exp(x[i] - peak);
    for (std::int64_t i = 0; i < vocab; ++i) mean += x[i] / static_cast<double>(vocab);
    const double lse = peak + std::log(sum);
    const std::int64_t label = labels[row];
    double loss = 0;
    if (label >= 0) {
      loss = lse - (1 - terms.smoothing) * x[label] + terms.z * lse * lse;
      if (terms.smoothing != 0) loss -= terms.smoothing * mean;
    }
    result.losses.push_back(loss);
    for (std::int64_t i = 0; i < vocab; ++i) {
      const double target = (i == label ? 1 - terms.smoothing : 0.0) + terms.smoothing / static_cast<double>(vocab);
      const double gradient = std::exp(x[i] - lse) * (1 + 2 * terms.z * lse) - target;
      result.gradients.push_back(label < 0 ? 0.0 : gradient * scale);
    }
  }
  return result;
}

const std::vector<Terms> kTerms{{}, {0.1, 0}, {1, 0}, {0, 1e-3}, {0.2, 1e-3}};

TEST(CrossEntropyRaw, LossesAndGradientsMatchDoubles) {
  for_both_types([]<class T>() {
    for (const std::int64_t vocab : kLengths) {
      const Doubles input = rounded<T>(normal(kRows * vocab, 12, 5.0, -40.0));
      const std::vector<std::int64_t> labels{0, vocab - 1, -100, vocab / 2, -1};
      for (const Terms& terms : kTerms) {
        SCOPED_TRACE(::testing::Message() << vocab << ", smoothing " << terms.smoothing << ", z " << terms.z);
        const Expected expected = cross_entropy_of(input, labels, vocab, 0.25, terms);
        for (const auto& version : GANTRY_ISA_VERSIONS(cross_entropy<T>)) {
          SCOPED_TRACE(base::isa_name(version.isa));
          Guarded<T> logits(input);
          Guarded<float> losses(kRows);
          CrossEntropyArgs<T> args{logits.data(), labels.data(), losses.data(), vocab, 0.0f};
          args.label_smoothing = static_cast<float>(terms.smoothing);
          args.z_loss = static_cast<float>(terms.z);
          run_rows(version.run, args);
          expect_near(losses, expected.losses);
          EXPECT_EQ(logits.values(), input) << "scale 0 must leave the logits alone";
          args.scale = 0.25f;
          run_rows(version.run, args);
          expect_near(losses, expected.losses);
          expect_near(logits, expected.gradients, 0.1);
        }
      }
    }
  });
}

// -infinity hides an entry: its probability is zero and so is its gradient.
TEST(CrossEntropyRaw, HiddenEntriesAndHugeLogitsStayFinite) {
  constexpr std::int64_t kVocab = 37;
  const std::vector<std::int64_t> labels{4};
  for (const auto& version : GANTRY_ISA_VERSIONS(cross_entropy<float>)) {
    SCOPED_TRACE(base::isa_name(version.isa));
    Doubles input(kVocab, -INFINITY);
    input[4] = 3e38;
    input[5] = input[36] = -3e38;
    Guarded<float> logits(input), losses(1);
    version.run({logits.data(), labels.data(), losses.data(), kVocab, 1.0f}, 0, 1);
    EXPECT_EQ(losses.values(), Doubles{0.0});
    EXPECT_EQ(logits.values(), Doubles(kVocab, 0.0));
  }
}

TEST(CrossEntropyRaw, AHiddenLabelCostsInfinity) {
  const std::vector<std::int64_t> labels{1};
  for (const auto& version : GANTRY_ISA_VERSIONS(cross_entropy<float>)) {
    SCOPED_TRACE(base::isa_name(version.isa));
    Guarded<float> logits(Doubles{0, -INFINITY, 0}), losses(1);
    version.run({logits.data(), labels.data(), losses.data(), 3, 1.0f}, 0, 1);
    EXPECT_EQ(losses.values(), Doubles{INFINITY});
    EXPECT_EQ(logits.values(), (Doubles{0.5, -1, 0.5}));
  }
}

TEST(CrossEntropyRaw, ANanAnywhereReachesLossAndGradient) {
  for_both_types([]<class T>() {
    for (const std::int64_t place : {0, 16, 31, 34}) {
      SCOPED_TRACE(place);
      const std::vector<std::int64_t> labels{2};
      for (const auto& version : GANTRY_ISA_VERSIONS(cross_entropy<T>)) {
        SCOPED_TRACE(base::isa_name(version.isa));
        Doubles input = normal(35, 3);
        input[static_cast<std::size_t>(place)] = std::nan("");
        Guarded<T> logits(input);
        Guarded<float> losses(1);
        version.run({logits.data(), labels.data(), losses.data(), 35, 1.0f}, 0, 1);
        EXPECT_TRUE(std::isnan(losses.values()[0]));
        for (const double gradient : logits.values()) EXPECT_TRUE(std::isnan(gradient));
      }
    }
  });
}

}  // namespace
}  // namespace gantry::kernels
