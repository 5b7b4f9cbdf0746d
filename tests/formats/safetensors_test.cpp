#include "gantry/formats/safetensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "gantry/base/env.h"
#include "tests/formats/test_files.h"

namespace gantry::formats {
namespace {

using testing::as_bytes;
using testing::bytes_of;
using testing::input_error;
using testing::raw;
using testing::TemporaryFolder;

std::string image(const std::string& json, std::size_t data_bytes) {
  return raw<std::uint64_t>(json.size()) + json + std::string(data_bytes, '\1');
}

std::string parse_error(const std::string& file) {
  return input_error([&] { SafetensorsFile::parse(as_bytes(file), "t.safetensors"); });
}

const std::string kGood =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
    R"("a":{"dtype":"U8","shape":[3],"data_offsets":[16,19]},"s":{"dtype":"I64","shape":[],"data_offsets":[19,27]}})";

TEST(SafetensorsFile, ReadsTensorsMetadataAndData) {
  const std::string bytes = image(kGood, 27);
  const auto file = SafetensorsFile::parse(as_bytes(bytes), "t");
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.tensors()[0].name, "b") << "order of the data";
  EXPECT_EQ(file.tensors()[0].shape, (std::vector<std::int64_t>{2, 2}));
  EXPECT_EQ(file.metadata().at("format"), "pt");
  ASSERT_NE(file.find("a"), nullptr);
  EXPECT_EQ(file.find("a")->dtype, DType::kU8);
  EXPECT_EQ(file.data(*file.find("a")).size(), 3u);
  EXPECT_EQ(file.find("a")->offset, 8 + kGood.size() + 16);
  EXPECT_EQ(file.find("zz"), nullptr);
  EXPECT_TRUE(file.find("s")->shape.empty());
}

TEST(SafetensorsFile, KeepsLookupsValidWhenMoved) {
  const std::string bytes = image(kGood, 27);
  auto file = SafetensorsFile::parse(as_bytes(bytes), "t");
  const auto moved = std::move(file);
  ASSERT_NE(moved.find("a"), nullptr);
  EXPECT_EQ(moved.find("a")->name, "a");
}

TEST(SafetensorsFile, AcceptsAFileWithoutTensors) {
  const std::string bytes = image("{}      ", 0);
  EXPECT_TRUE(SafetensorsFile::parse(as_bytes(bytes), "t").tensors().empty());
}

struct BadHeader {
  const char* what;
  std::string json;
  std::size_t data_bytes;
  const char* message;
};

class SafetensorsBadHeader : public ::testing::TestWithParam<BadHeader> {};

TEST_P(SafetensorsBadHeader, IsRefusedWithItsReason) {
  const BadHeader& bad = GetParam();
  const std::string message = parse_error(image(bad.json, bad.data_bytes));
  EXPECT_MENTIONS(message, bad.message);
  EXPECT_MENTIONS(message, "t.safetensors");
}

std::string one(const std::string& entry) { return R"({"x":)" + entry + "}"; }

INSTANTIATE_TEST_SUITE_P(
    Rows, SafetensorsBadHeader,
    ::testing::Values(
        BadHeader{"not JSON", "{]", 0, "not valid JSON"}, BadHeader{"array", "[]", 0, "must be a JSON object"},
        BadHeader{"scalar document", "3", 0, "must be a JSON object"},
        BadHeader{"trailing text", "{}{}", 0, "not valid JSON"},
        BadHeader{"entry not an object", R"({"x":3})", 0, "header entry 'x' must be an object"},
        BadHeader{"dtype unknown", one(R"({"dtype":"F31","shape":[1],"data_offsets":[0,4]})"), 4,
                  "unknown element type 'F31'"},
        BadHeader{"dtype number", one(R"({"dtype":1,"shape":[1],"data_offsets":[0,4]})"), 4, "cannot hold 1"},
        BadHeader{"dtype array", one(R"({"dtype":["F32"],"shape":[1],"data_offsets":[0,4]})"), 4,
                  "cannot hold an array"},
        BadHeader{"negative size", one(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})"), 4, "negative"},
        BadHeader{"fractional size", one(R"({"dtype":"F32","shape":[1.5],"data_offsets":[0,4]})"), 4,
                  "cannot hold 1.5"},
        BadHeader{"size past 64 bits", one(R"({"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,4]})"), 4,
                  "cannot hold"},
        BadHeader{"size past 63 bits", one(R"({"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,4]})"), 4,
                  "2^63"},
        BadHeader{"product overflows", one(R"({"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]})"),
                  0, "overflows"},
        BadHeader{"bytes overflow", one(R"({"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]})"), 0,
                  "overflows"},
        BadHeader{"size disagrees", one(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"), 8,
                  "takes 12 bytes, data_offsets 8"},
        BadHeader{"backwards", one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})"), 4, "run backwards"},
        BadHeader{"past the end", one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})"), 4, "truncated?"},
        BadHeader{"hole", one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})"), 8, "4 unused bytes"},
        BadHeader{"tail", one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})"), 8, "4 bytes of data after"},
        BadHeader{"three offsets", one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4,8]})"), 4, "two numbers"},
        BadHeader{"one offset", one(R"({"dtype":"F32","shape":[1],"data_offsets":[0]})"), 4, "needs dtype"},
        BadHeader{"field missing", one(R"({"dtype":"F32","data_offsets":[0,4]})"), 4, "needs dtype"},
        BadHeader{"field twice", one(R"({"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]})"), 4, "twice"},
        BadHeader{"unknown field", one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4],"q":1})"), 4,
                  "unknown field 'q'"},
        BadHeader{"nested array", one(R"({"dtype":"F32","shape":[[1]],"data_offsets":[0,4]})"), 4, "an array"},
        BadHeader{"metadata number", R"({"__metadata__":{"a":1}})", 0, "must be a string"},
        BadHeader{"metadata nested", R"({"__metadata__":{"a":{}}})", 0, "must be a string"},
        BadHeader{"name twice",
                  R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"x":{"dtype":"U8","shape":[1],)"
                  R"("data_offsets":[1,2]}})",
                  2, "'x' appears twice"},
        BadHeader{"overlap",
                  R"({"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"y":{"dtype":"U8","shape":[2],)"
                  R"("data_offsets":[1,3]}})",
                  3, "overlaps"}),
    [](const auto& row) {
      std::string name = row.param.what;
      std::replace(name.begin(), name.end(), ' ', '_');
      return name;
    });

TEST(SafetensorsFile, RefusesTruncationAtEveryLength) {
  const std::string bytes = image(kGood, 27);
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_THROW(SafetensorsFile::parse(as_bytes(bytes).first(length), "t"), base::InputError) << length;
  }
}

TEST(SafetensorsFile, SurvivesEveryBitFlip) {
  const std::string good = image(kGood, 27);
  int refused = 0;
  for (std::size_t bit = 0; bit < (8 + kGood.size()) * 8; ++bit) {
    std::string bytes = good;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    try {
      const auto file = SafetensorsFile::parse(as_bytes(bytes), "t");
      for (const auto& tensor : file.tensors()) EXPECT_EQ(file.data(tensor).size(), tensor.bytes);
    } catch (const base::InputError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 500);
}

TEST(SafetensorsFile, RefusesAnOversizedHeaderLength) {
  EXPECT_MENTIONS(parse_error(raw<std::uint64_t>(~std::uint64_t{0}) + "{}"), "exceeds the limit");
  EXPECT_MENTIONS(parse_error(raw<std::uint64_t>(kMaxSafetensorsHeader) + "{}"), "truncated");
}

TEST(SafetensorsFile, RefusesATensorOfAnotherFile) {
  const std::string bytes = image(kGood, 27);
  const auto file = SafetensorsFile::parse(as_bytes(bytes), "t");
  TensorInfo alien = file.tensors()[0];
  alien.bytes = ~std::uint64_t{0};
  EXPECT_MENTIONS(input_error([&] { file.data(alien); }), "not of this file");
}

TEST(SafetensorsFile, NamesAMissingFileAndAFolder) {
  const TemporaryFolder folder;
  EXPECT_MENTIONS(input_error([&] { SafetensorsFile::open(folder / "none.safetensors"); }),
                  "none.safetensors: cannot open");
  EXPECT_MENTIONS(input_error([&] { SafetensorsFile::open(folder.path()); }), "regular file");
}

TEST(SafetensorsFile, ReadsTheSharedGoldenModels) {
  const auto data = base::data_dir(GANTRY_SOURCE_DIR);
  if (!data) GTEST_SKIP() << "no shared data folder; set GANTRY_DATA";
  const auto file = SafetensorsFile::open(*data / "llm/tiny-llama/model.safetensors");
  const TensorInfo* embedding = file.find("model.embed_tokens.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->shape, (std::vector<std::int64_t>{256, 64}));
  EXPECT_EQ(embedding->dtype, DType::kF32);
}

}  // namespace
}  // namespace gantry::formats
