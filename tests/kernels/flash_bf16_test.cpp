// Attention with bf16 products on tensors: its error beside that of PyTorch's operators in bf16, its bits on any number
// of threads, and its tiles beside those of the libraries that PyTorch calls.
#include <array>
#include <cstdlib>

#include "gantry/base/isa.h"
#include "gantry/kernels/attention/attention.h"
#include "tests/kernels/torch_support.h"

namespace gantry::kernels {
namespace {

using namespace testing;

class FlashBf16 : public ::testing::Test {
 protected:
  void TearDown() override { choose(nullptr); }

  static void choose(const char* isa) {
    if (isa == nullptr) {
      ::unsetenv("GANTRY_ISA");
    } else {
      ::setenv("GANTRY_ISA", isa, 1);
    }
    base::reset_isa_for_testing();
  }

  /// With every instruction set that has bf16 products, and AVX-512 without them beside it.
  template <class Body>
  void for_isas(Body body) {
    for (const base::Isa isa : {base::Isa::kAvx512, base::Isa::kAvx512Bf16, base::Isa::kAmx}) {
      if (isa > base::best_isa()) continue;
      SCOPED_TRACE(base::isa_name(isa));
      choose(std::string(base::isa_name(isa)).c_str());
      body();
    }
  }
};

struct Sizes {
  std::int64_t t, s, heads, kv_heads, dim;
  bool causal;
};

variable_list bf16_inputs(const Sizes& z) {
  return {normal({2, z.t, z.heads, z.dim}, 1, 1.2), normal({2, z.s, z.kv_heads, z.dim}, 2),
          normal({2, z.s, z.kv_heads, z.dim}, 3)};
}

AttentionOptions bf16_options(const Sizes& z) {
  return {.heads = z.heads, .kv_heads = z.kv_heads, .head_dim = z.dim, .causal = z.causal};
}

TEST_F(FlashBf16, ErrorsAreWithinOneAndAHalfTimesThoseOfPyTorchsOperators) {
  for (const Sizes& z : {Sizes{300, 300, 2, 2, 64, true},
                         {300, 300, 4, 2, 64, false},
                         {70, 513, 2, 1, 80, false},
                         {33, 33, 2, 2, 16, true}}) {
    SCOPED_TRACE(::testing::Message() << z.t << " queries, " << z.s << " keys, head size " << z.dim);
    const Op ours = [&](const variable_list& in) -> variable_list {
      return {flash_attention(in[0], in[1], in[2], bf16_options(z))};
    };
    const Op eager = [&](const variable_list& in) -> variable_list {
      const auto heads = [&](const at::Tensor& x) {
        return x.repeat_interleave(z.heads / x.size(2), 2).transpose(1, 2);
      };
      return {std::get<0>(at::_scaled_dot_product_attention_math(heads(in[0]), heads(in[1]), heads(in[2]), std::nullopt,
                                                                 0.0, z.causal))
                  .transpose(1, 2)};
    };
    for_isas([&] { expect_matches(ours, eager, bf16_inputs(z)); });
  }
}

TEST_F(FlashBf16, BitsDoNotDependOnThreads) {
  const Sizes z{150, 150, 6, 2, 64, true};
  AttentionOptions options = bf16_options(z);
  options.dropout = {123456789, 7, dropout_threshold(0.2)};
  const Op op = [&](const variable_list& in) -> variable_list {
    return {flash_attention(in[0], in[1], in[2], options)};
  };
  const variable_list in = bf16_inputs(z), weights = output_weights(op, in);
  const int threads = at::get_num_threads();
  for_isas([&] {
    at::set_num_threads(1);
    const Traced one = run(op, in, at::kBFloat16, weights);
    at::set_num_threads(3);
    const Traced three = run(op, in, at::kBFloat16, weights);
    EXPECT_TRUE(at::equal(one.outputs[0], three.outputs[0]));
    for (std::size_t i = 0; i < in.size(); ++i) EXPECT_TRUE(at::equal(one.gradients[i], three.gradients[i])) << i;
  });
  at::set_num_threads(threads);
}

// oneDNN and PyTorch's own attention configure the tile registers of the threads that they share with us.
TEST_F(FlashBf16, ProductsOfOtherLibrariesBetweenCallsChangeNothingAndAreNotChanged) {
  const Sizes z{200, 200, 4, 4, 64, false};
  variable_list in = bf16_inputs(z);
  for (at::Tensor& x : in) x = x.to(at::kBFloat16);
  const at::Tensor left = normal({200, 320}, 5).to(at::kBFloat16), right = normal({320, 96}, 6).to(at::kBFloat16);
  const auto heads = [](const at::Tensor& x) { return x.transpose(1, 2); };
  const auto others = [&]() -> std::array<at::Tensor, 2> {
    return {at::matmul(left, right), at::scaled_dot_product_attention(heads(in[0]), heads(in[1]), heads(in[2]))};
  };
  const at::NoGradGuard no_grad;
  const auto untouched = others();
  for_isas([&] {
    const at::Tensor ours = flash_attention(in[0], in[1], in[2], bf16_options(z));
    for (int round = 0; round < 3; ++round) {
      const auto again = others();
      EXPECT_TRUE(at::equal(again[0], untouched[0])) << "matmul, round " << round;
      EXPECT_TRUE(at::equal(again[1], untouched[1])) << "torch's attention, round " << round;
      EXPECT_TRUE(at::equal(flash_attention(in[0], in[1], in[2], bf16_options(z)), ours)) << "round " << round;
    }
  });
}

}  // namespace
}  // namespace gantry::kernels
