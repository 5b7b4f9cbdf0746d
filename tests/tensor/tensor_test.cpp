// Element types, tensors over mapped bytes, and gradient slots.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "gantry/base/check.h"
#include "gantry/tensor/dtype.h"
#include "gantry/tensor/gradient_sink.h"
#include "gantry/tensor/mapped.h"
#include "tests/test_support.h"

namespace gantry::tensor {
namespace {

using tests::input_error;

TEST(Dtype, FileTypesComeBackAndKeepTheirSize) {
  using formats::DType;
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kI64, DType::kI32, DType::kI16,
                            DType::kI8, DType::kU8, DType::kBool}) {
    EXPECT_EQ(to_file_dtype(to_scalar_type(dtype)), dtype) << formats::dtype_name(dtype);
  }
  EXPECT_EQ(to_scalar_type(DType::kBF16), at::kBFloat16);
  EXPECT_EQ(input_error([] { to_file_dtype(at::kComplexFloat); }), "tensors of type ComplexFloat can't be saved");
  EXPECT_NE(input_error([] { to_scalar_type(DType::kU64); }).find("can't be loaded into a tensor"), std::string::npos);
}

TEST(Dtype, NamesOfTheCommandLine) {
  EXPECT_EQ(parse_dtype("fp32"), at::kFloat);
  EXPECT_EQ(parse_dtype("bfloat16"), at::kBFloat16);
  EXPECT_EQ(parse_dtype("float16"), at::kHalf);
  for (const auto* name : {"fp32", "bf16", "fp16"}) EXPECT_EQ(dtype_label(parse_dtype(name)), name);
  EXPECT_EQ(dtype_label(at::kDouble), "fp64");
  EXPECT_EQ(input_error([] { parse_dtype("int8"); }), "dtype 'int8' is not one of fp32, bf16, fp16");
}

struct Bytes {
  alignas(64) float values[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  std::span<const std::byte> span(std::size_t from, std::size_t count) const {
    return {reinterpret_cast<const std::byte*>(values) + from, count};
  }
};

TEST(TensorOver, AlignedBytesAreNotCopiedAndTheirOwnerLivesAsLongAsAView) {
  auto owner = std::make_shared<Bytes>();
  const std::weak_ptr<Bytes> watch = owner;
  const float* data = owner->values;
  at::Tensor tensor = tensor_over(owner->span(8, 24), {2, 3}, at::kFloat, owner);
  owner.reset();
  EXPECT_EQ(tensor.const_data_ptr(), data + 2);
  EXPECT_TRUE(at::equal(tensor, at::arange(2, 8, at::kFloat).view({2, 3})));
  at::Tensor view = tensor[1];
  tensor.reset();
  EXPECT_FALSE(watch.expired());
  EXPECT_EQ(view[2].item<float>(), 7);
  view.reset();
  EXPECT_TRUE(watch.expired());
}

TEST(TensorOver, MisalignedAndEmptyBytesAreCopied) {
  auto owner = std::make_shared<Bytes>();
  std::vector<std::byte> shifted(13);
  std::memcpy(shifted.data() + 1, owner->values + 4, 12);
  const at::Tensor tensor = tensor_over(std::span(shifted).subspan(1), {3}, at::kFloat, owner);
  EXPECT_EQ(owner.use_count(), 1) << "a copy needs no owner";
  EXPECT_TRUE(at::equal(tensor, at::tensor({4.0f, 5.0f, 6.0f})));
  EXPECT_EQ(tensor_over({}, {0, 7}, at::kBFloat16, owner).sizes(), at::IntArrayRef({0, 7}));
  EXPECT_EQ(tensor_over(owner->span(0, 4), {}, at::kFloat, owner).dim(), 0);
}

TEST(TensorOver, ShapesThatDoNotFitAreRefusedBeforeAnythingIsAllocated) {
  const auto owner = std::make_shared<Bytes>();
  const auto refused = [&](std::size_t from, std::size_t count, std::vector<std::int64_t> shape) {
    return input_error([&] { tensor_over(owner->span(from, count), shape, at::kFloat, owner); });
  };
  EXPECT_EQ(refused(0, 24, {7}), "tensor [7] of Float does not fit 24 bytes of file");
  EXPECT_NE(refused(1, 24, {std::int64_t{1} << 60, 1}).find("does not fit 24 bytes"), std::string::npos);
  EXPECT_NE(refused(0, 24, {std::int64_t{1} << 62, 4, 3}).find("does not fit"), std::string::npos);
  EXPECT_NE(refused(0, 24, {-2, -3}).find("does not fit"), std::string::npos);
  EXPECT_NE(refused(0, 0, {1}).find("does not fit 0 bytes"), std::string::npos);
}

TEST(GradientSinks, FirstWritesOverwriteLaterOnesAdd) {
  const at::Tensor parameter = at::zeros({2, 2}), place = at::full({2, 2}, NAN);
  GradientSinks sinks;
  sinks.add(parameter, place);
  GradientSlot& slot = *sinks.find(parameter);
  for (int step = 0; step < 2; ++step) {
    sinks.begin_step();
    accumulate(slot, at::full({2, 2}, 1.5));
    accumulate(slot, at::full({2, 2}, 2.0, at::kBFloat16));
    sinks.finish_step();
    EXPECT_TRUE(at::equal(place, at::full({2, 2}, 3.5)));
  }
}

TEST(GradientSinks, ProductsAddInTheSlotsTypeOrThroughAConversion) {
  const at::Tensor parameter = at::zeros({2, 3}), a = at::randn({2, 5}), b = at::randn({5, 3});
  for (const auto type : {at::kFloat, at::kDouble}) {
    const at::Tensor place = at::full({2, 3}, NAN, type);
    GradientSlot slot{place, false};
    accumulate_product(slot, a, b);
    EXPECT_TRUE(slot.written);
    EXPECT_TRUE(at::allclose(place.to(at::kFloat), at::mm(a, b)));
    accumulate_product(slot, a, b);
    EXPECT_TRUE(at::allclose(place.to(at::kFloat), 2 * at::mm(a, b), 1e-5, 1e-6));
  }
}

TEST(GradientSinks, UnwrittenSlotsAreZeroedAndOnlyThose) {
  const at::Tensor used = at::zeros({3}), unused = at::zeros({3});
  const at::Tensor used_place = at::full({3}, NAN), unused_place = at::full({3}, NAN);
  GradientSinks sinks;
  sinks.add(used, used_place);
  sinks.add(unused, unused_place);
  sinks.begin_step();
  accumulate(*sinks.find(used), at::ones({3}));
  sinks.finish_step();
  EXPECT_TRUE(at::equal(used_place, at::ones({3})));
  EXPECT_TRUE(at::equal(unused_place, at::zeros({3})));
}

TEST(GradientSinks, GuardsNestAndStrangersAreNotFound) {
  GradientSinks outer, inner;
  EXPECT_EQ(GradientSinks::active(), nullptr);
  {
    const GradientSinks::Guard a(outer);
    {
      const GradientSinks::Guard b(inner);
      EXPECT_EQ(GradientSinks::active(), &inner);
    }
    EXPECT_EQ(GradientSinks::active(), &outer);
  }
  EXPECT_EQ(GradientSinks::active(), nullptr);
  EXPECT_EQ(outer.find(at::zeros({1})), nullptr);
  EXPECT_EQ(input_error([&] { outer.add(at::zeros({2}), at::zeros({3})); }),
            "gradient slot: expected shape [2], got [3]");
}

}  // namespace
}  // namespace gantry::tensor
