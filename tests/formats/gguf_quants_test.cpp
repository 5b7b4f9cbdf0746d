#include "gantry/formats/gguf_quants.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "gantry/base/env.h"
#include "gantry/base/json.h"
#include "gantry/formats/gguf.h"
#include "gantry/formats/safetensors.h"
#include "tests/formats/sha256.h"
#include "tests/formats/test_files.h"

namespace gantry::formats {
namespace {

using testing::as_bytes;
using testing::bytes_of;
using testing::input_error;
using testing::sha256;

class GgufBlocks : public ::testing::TestWithParam<GgufType> {};

TEST_P(GgufBlocks, EqualTheReferenceBitForBit) {
  const std::string name(gguf_type_name(GetParam()));
  const auto golden = SafetensorsModel::open(GANTRY_SOURCE_DIR "/tests/data/gguf_blocks.safetensors");
  const auto blocks = golden.data(golden.get(name + ".blocks"));
  const auto wanted = golden.data(golden.get(name + ".values"));
  std::vector<float> values(wanted.size() / sizeof(float));
  dequantize_blocks(GetParam(), blocks, values);
  EXPECT_EQ(std::memcmp(values.data(), wanted.data(), wanted.size()), 0);
}

INSTANTIATE_TEST_SUITE_P(Types, GgufBlocks,
                         ::testing::Values(GgufType::kF16, GgufType::kBF16, GgufType::kQ4_0, GgufType::kQ4_1,
                                           GgufType::kQ5_0, GgufType::kQ5_1, GgufType::kQ8_0, GgufType::kQ4_K,
                                           GgufType::kQ5_K, GgufType::kQ6_K),
                         [](const auto& row) { return std::string(gguf_type_name(row.param)); });

TEST(GgufQuants, ParallelAndSerialAgree) {
  std::vector<std::uint8_t> blocks(18 * 20'000);
  for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<std::uint8_t>(i * 2654435761u >> 13 & 0x3f);
  std::vector<float> serial(32 * 20'000);
  std::vector<float> parallel(serial.size());
  dequantize_blocks(GgufType::kQ4_0, bytes_of(blocks), serial);
  dequantize_blocks_parallel(GgufType::kQ4_0, bytes_of(blocks), parallel);
  EXPECT_EQ(serial, parallel);
}

TEST(GgufQuants, RefuseWrongSizesAndUnreadTypes) {
  std::vector<std::uint8_t> bytes(36);
  std::vector<float> out(64);
  const auto error = [&](GgufType type, std::size_t size, std::size_t elements) {
    return input_error([&] { dequantize_blocks(type, bytes_of(bytes).first(size), std::span(out).first(elements)); });
  };
  EXPECT_MENTIONS(error(GgufType::kQ4_0, 35, 64), "35 bytes do not give 64 elements");
  EXPECT_MENTIONS(error(GgufType::kQ4_0, 36, 63), "36 bytes do not give 63 elements");
  EXPECT_MENTIONS(error(GgufType::kIQ4_NL, 36, 64), "GGUF type IQ4_NL is not supported; convert");
}

TEST(Sha256, EqualsThePublishedVectors) {
  EXPECT_EQ(sha256(as_bytes("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

/// The SmolLM2 GGUF: GANTRY_SMOLLM2_GGUF, or where `make demo` puts it.
std::optional<std::filesystem::path> smollm2() {
  if (const auto path = base::env("GANTRY_SMOLLM2_GGUF")) return *path;
  const std::filesystem::path usual = GANTRY_SOURCE_DIR "/build/model/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (std::filesystem::exists(usual)) return usual;
  return std::nullopt;
}

TEST(GgufSmolLM2, TensorsHaveTheGoldenHashes) {
  const auto data = base::data_dir(GANTRY_SOURCE_DIR);
  const auto path = smollm2();
  if (!data || !path) GTEST_SKIP() << "needs the shared data folder and SmolLM2 (GANTRY_SMOLLM2_GGUF names the file)";
  const auto golden = base::read_json_file(*data / "llm/smollm2-golden/gguf-tensors.json");
  const auto file = GgufFile::open(*path);
  EXPECT_EQ(file.tensors().size(), golden.at("tensor_count"));
  ASSERT_GE(golden.at("tensors").size(), 4u);
  for (const auto& [name, wanted] : golden.at("tensors").items()) {
    const GgufTensor& tensor = file.get(name);
    EXPECT_EQ(gguf_type_name(tensor.type), wanted.at("type").get<std::string>());
    EXPECT_EQ(tensor.shape, wanted.at("row_major_shape").get<std::vector<std::int64_t>>());
    EXPECT_EQ(tensor.offset, wanted.at("offset_in_file"));
    EXPECT_EQ(sha256(file.raw(tensor)), wanted.at("sha256_raw").get<std::string>()) << name;
    std::vector<float> values(static_cast<std::size_t>(tensor.numel()));
    file.dequantize(tensor, values);
    EXPECT_EQ(sha256(bytes_of(values)), wanted.at("sha256_f32").get<std::string>()) << name;
  }
}

TEST(GgufSmolLM2, ScalarMetadataEqualsTheGolden) {
  const auto data = base::data_dir(GANTRY_SOURCE_DIR);
  const auto path = smollm2();
  if (!data || !path) GTEST_SKIP() << "needs the shared data folder and SmolLM2 (GANTRY_SMOLLM2_GGUF names the file)";
  const auto golden = base::read_json_file(*data / "llm/smollm2-golden/gguf-tensors.json");
  const auto file = GgufFile::open(*path);
  for (const auto& [key, wanted] : golden.at("metadata").items()) {
    if (wanted.is_boolean()) {
      EXPECT_EQ(file.get_bool(key), wanted.get<bool>()) << key;
    } else if (wanted.is_number_integer()) {
      EXPECT_EQ(file.get_i64(key), wanted.get<std::int64_t>()) << key;
    } else if (wanted.is_number()) {
      EXPECT_EQ(file.get_f32(key), wanted.get<float>()) << key;
    } else if (wanted.is_string()) {
      EXPECT_EQ(file.get_string(key), wanted.get<std::string>()) << key;
    }
  }
  EXPECT_EQ(file.get_string_array("tokenizer.ggml.tokens").size(), 49152u);
}

}  // namespace
}  // namespace gantry::formats
