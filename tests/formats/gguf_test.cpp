#include "gantry/formats/gguf.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "tests/formats/test_files.h"

namespace gantry::formats {
namespace {

using testing::as_bytes;
using testing::bytes_of;
using testing::input_error;
using testing::raw;
using testing::read_raw;
using testing::TemporaryFolder;

std::string text(std::string_view value) { return raw<std::uint64_t>(value.size()) + std::string(value); }

std::string header(std::uint64_t tensors, std::uint64_t entries, std::uint32_t version = 3) {
  return "GGUF" + raw(version) + raw(tensors) + raw(entries);
}

/// A table entry with `ne` in the file's order.
std::string entry(std::string_view name, std::vector<std::uint64_t> ne, std::uint32_t type, std::uint64_t offset) {
  std::string out = text(name) + raw<std::uint32_t>(static_cast<std::uint32_t>(ne.size()));
  for (const auto size : ne) out += raw(size);
  return out + raw(type) + raw(offset);
}

std::string with_data(std::string table, std::size_t data_bytes, std::size_t alignment = 32) {
  table.resize((table.size() + alignment - 1) / alignment * alignment);
  return table + std::string(data_bytes, '\1');
}

std::string gguf_error(const std::string& file) {
  return input_error([&] { GgufFile::parse(as_bytes(file), "t.gguf"); });
}

const std::vector<std::pair<std::string, GgufValue>> kMetadata{
    {"general.architecture", std::string("llama")},
    {"u8", std::uint8_t{200}},
    {"i8", std::int8_t{-3}},
    {"u16", std::uint16_t{60000}},
    {"i16", std::int16_t{-30000}},
    {"u32", std::uint32_t{4'000'000'000}},
    {"i32", std::int32_t{-7}},
    {"u64", std::uint64_t{1} << 63},
    {"i64", std::int64_t{-1} << 62},
    {"f32", 1.5f},
    {"f64", 2.25},
    {"yes", true},
    {"tokens", std::vector<std::string>{"a", "", "ж"}},
    {"ints", std::vector<std::int32_t>{1, -2, 3}},
    {"scores", std::vector<float>{0.5f, -1.0f}},
    {"flags", std::vector<bool>{true, false, true}},
    {"empty", std::vector<double>{}},
};

TEST(GgufFile, ReadsBackWhatTheWriterWrote) {
  const TemporaryFolder folder;
  const std::vector<float> matrix{1, 2, 3, 4, 5, 6};
  const std::vector<std::uint16_t> halves{0x3c00, 0xc000, 0x3f80};
  write_gguf(folder / "x.gguf", kMetadata,
             {{"m", GgufType::kF32, {2, 3}, bytes_of(matrix)},
              {"h", GgufType::kF16, {2}, bytes_of(halves).first(4)},
              {"b", GgufType::kBF16, {1}, bytes_of(halves).subspan(4)}});
  const auto file = GgufFile::open(folder / "x.gguf");
  EXPECT_EQ(file.version(), 3u);
  ASSERT_EQ(file.metadata().size(), kMetadata.size());
  for (const auto& [key, value] : kMetadata) EXPECT_EQ(*file.find_value(key), value) << key;
  const GgufTensor& m = file.get("m");
  EXPECT_EQ(m.shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(m.offset % 32, 0u);
  std::vector<float> values(6);
  file.dequantize(m, values);
  EXPECT_EQ(values, matrix);
  file.dequantize(file.get("h"), std::span(values).first(2));
  EXPECT_EQ(values[1], -2.0f);
  file.dequantize(file.get("b"), std::span(values).first(1));
  EXPECT_EQ(values[0], 1.0f);
  EXPECT_EQ(file.find("nix"), nullptr);
  EXPECT_MENTIONS(input_error([&] { file.get("nix"); }), "tensor 'nix' is missing");
}

TEST(GgufFile, GettersAcceptAnyIntegerWidthAndNameWhatIsWrong) {
  const TemporaryFolder folder;
  write_gguf(folder / "x.gguf", kMetadata, {});
  const auto file = GgufFile::open(folder / "x.gguf");
  EXPECT_EQ(file.get_u32("u8"), 200u);
  EXPECT_EQ(file.get_u32("u16"), 60000u);
  EXPECT_EQ(file.get_i64("i8"), -3);
  EXPECT_EQ(file.get_f32("f64"), 2.25f);
  EXPECT_EQ(file.get_f32("i32"), -7.0f);
  EXPECT_EQ(file.get_u32("none", 5), 5u);
  EXPECT_EQ(file.get_string("none", "x"), "x");
  EXPECT_EQ(file.get_int_array("ints"), (std::vector<std::int64_t>{1, -2, 3}));
  EXPECT_EQ(file.get_f32_array("scores").at(1), -1.0f);
  EXPECT_EQ(file.get_string_array("tokens").at(2), "ж");
  EXPECT_TRUE(file.get_bool("yes"));
  EXPECT_MENTIONS(input_error([&] { file.get_u32("i32"); }), "'i32': expected an integer from 0 to 2^32 - 1");
  EXPECT_MENTIONS(input_error([&] { file.get_i64("u64"); }), "found an integer out of range");
  EXPECT_MENTIONS(input_error([&] { file.get_u32("f32", 1); }), "found a fractional number");
  EXPECT_MENTIONS(input_error([&] { file.get_string("none"); }), "metadata 'none' is missing");
  EXPECT_MENTIONS(input_error([&] { file.get_string_array("ints"); }), "expected an array of strings, found an array");
  EXPECT_MENTIONS(input_error([&] { file.get_int_array("tokens"); }), "expected an array of integers");
  EXPECT_MENTIONS(input_error([&] { file.get_bool("u8"); }), "expected a boolean, found an integer");
}

TEST(GgufFile, ReadsVersion2AndOtherAlignments) {
  const std::string table = header(1, 1, 2) + text("general.alignment") + raw<std::uint32_t>(4) +
                            raw<std::uint32_t>(64) + entry("x", {4}, 0, 64);
  const std::string bytes = with_data(table, 80, 64);
  const auto file = GgufFile::parse(as_bytes(bytes), "t");
  EXPECT_EQ(file.version(), 2u);
  EXPECT_EQ(file.get("x").offset, bytes.size() - 16);
}

TEST(GgufFile, ListsUnreadTypesAndNamesThemWhenDequantised) {
  const std::string bytes = with_data(header(1, 0) + entry("x", {256}, 20, 0), 8 * 18);
  const auto file = GgufFile::parse(as_bytes(bytes), "t.gguf");
  EXPECT_EQ(gguf_type_name(file.get("x").type), "IQ4_NL");
  EXPECT_EQ(file.raw(file.get("x")).size(), 144u);
  std::vector<float> out(256);
  EXPECT_MENTIONS(input_error([&] { file.dequantize(file.get("x"), out); }),
                  "t.gguf: tensor 'x': GGUF type IQ4_NL is not supported");
}

struct BadGguf {
  const char* what;
  std::string image;
  const char* message;
};

class GgufBad : public ::testing::TestWithParam<BadGguf> {};

TEST_P(GgufBad, IsRefusedWithItsReason) {
  const std::string message = gguf_error(GetParam().image);
  EXPECT_MENTIONS(message, GetParam().message);
  EXPECT_MENTIONS(message, "t.gguf");
}

constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max();

std::string u32_entry(std::string_view key, std::uint32_t value) {
  return text(key) + raw<std::uint32_t>(4) + raw(value);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, GgufBad,
    ::testing::Values(
        BadGguf{"empty", "", "truncated: magic"}, BadGguf{"wrong magic", "GGML" + std::string(40, '\0'), "not a GGUF"},
        BadGguf{"version 1", header(0, 0, 1), "version 1, expected 2 or 3"},
        BadGguf{"version 4", header(0, 0, 4), "version 4"},
        BadGguf{"big endian", header(0, 0, 0x03000000), "big-endian"},
        BadGguf{"a billion tensors", header(1'000'000'000, 0), "tensor count of 1000000000 cannot fit"},
        BadGguf{"tensor count past 64 bits", header(kHuge, 0), "cannot fit"},
        BadGguf{"entry count", header(0, kHuge), "metadata count of 18446744073709551615 cannot fit"},
        BadGguf{"key length", header(0, 1) + raw(kHuge) + std::string(32, 'x'), "more than 65535"},
        BadGguf{"string length", header(0, 1) + text("k") + raw<std::uint32_t>(8) + raw(kHuge), "truncated"},
        BadGguf{"array length", header(0, 1) + text("k") + raw<std::uint32_t>(9) + raw<std::uint32_t>(12) + raw(kHuge),
                "length of array 'k'"},
        BadGguf{
            "string array length",
            header(0, 1) + text("k") + raw<std::uint32_t>(9) + raw<std::uint32_t>(8) + raw<std::uint64_t>(1) + "abc",
            "cannot fit"},
        BadGguf{"nested array",
                header(0, 1) + text("k") + raw<std::uint32_t>(9) + raw<std::uint32_t>(9) + raw<std::uint64_t>(0),
                "array of arrays"},
        BadGguf{"unknown value type", header(0, 1) + text("k") + raw<std::uint32_t>(13) + raw<std::uint64_t>(0),
                "unknown type number 13"},
        BadGguf{"key twice", header(0, 2) + u32_entry("k", 1) + u32_entry("k", 2), "'k' appears twice"},
        BadGguf{"alignment zero", header(0, 1) + u32_entry("general.alignment", 0), "power of two"},
        BadGguf{"alignment odd", header(0, 1) + u32_entry("general.alignment", 24), "power of two"},
        BadGguf{"alignment huge", header(0, 1) + u32_entry("general.alignment", 1u << 31), "power of two"},
        BadGguf{"alignment text", header(0, 1) + text("general.alignment") + raw<std::uint32_t>(8) + text("32"),
                "expected an integer"},
        BadGguf{"five axes", with_data(header(1, 0) + entry("x", {1, 1, 1, 1, 1}, 0, 0), 32), "5 axes"},
        BadGguf{"axes bomb", header(1, 0) + text("x") + raw<std::uint32_t>(0xffffffff) + std::string(40, '\0'), "axes"},
        BadGguf{"size past int64", with_data(header(1, 0) + entry("x", {kHuge}, 0, 0), 32), "overflows"},
        BadGguf{"product overflows", with_data(header(1, 0) + entry("x", {1u << 31, 1u << 31, 1u << 31}, 0, 0), 32),
                "overflows"},
        BadGguf{"bytes overflow", with_data(header(1, 0) + entry("x", {std::uint64_t{1} << 62}, 0, 0), 32),
                "overflows"},
        BadGguf{"part of a block", with_data(header(1, 0) + entry("x", {33}, 2, 0), 64), "not whole Q4_0 blocks of 32"},
        BadGguf{"unknown tensor type", with_data(header(1, 0) + entry("x", {32}, 4, 0), 64), "unknown type number 4"},
        BadGguf{"offset unaligned", with_data(header(1, 0) + entry("x", {1}, 0, 8), 64), "not a multiple"},
        BadGguf{"offset past the end", with_data(header(1, 0) + entry("x", {1}, 0, 64), 64), "truncated: tensor 'x'"},
        BadGguf{"offset overflows", with_data(header(1, 0) + entry("x", {1}, 0, kHuge - 31), 64), "truncated"},
        BadGguf{"overlap", with_data(header(2, 0) + entry("x", {16}, 0, 0) + entry("y", {1}, 0, 32), 64), "overlap"},
        BadGguf{"name twice", with_data(header(2, 0) + entry("x", {1}, 0, 0) + entry("x", {1}, 0, 32), 64),
                "'x' appears twice"},
        BadGguf{"data missing", header(1, 0) + entry("x", {1}, 0, 0), "truncated"}),
    [](const auto& row) {
      std::string name = row.param.what;
      std::replace(name.begin(), name.end(), ' ', '_');
      return name;
    });

std::string written_image(const TemporaryFolder& folder) {
  const std::vector<std::uint8_t> blocks(36, 17);
  write_gguf(folder / "x.gguf", kMetadata, {{"q", GgufType::kQ4_0, {2, 32}, bytes_of(blocks)}});
  return read_raw(folder / "x.gguf");
}

TEST(GgufFile, RefusesTruncationAtEveryLength) {
  const TemporaryFolder folder;
  const std::string bytes = written_image(folder);
  const std::size_t padding = 28;  // after the last tensor; not needed to read it
  for (std::size_t length = 0; length < bytes.size() - padding; ++length) {
    EXPECT_THROW(GgufFile::parse(as_bytes(bytes).first(length), "t"), base::InputError) << length;
  }
}

TEST(GgufFile, SurvivesEveryBitFlip) {
  const TemporaryFolder folder;
  const std::string good = written_image(folder);
  int refused = 0;
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bytes = good;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    try {
      const auto file = GgufFile::parse(as_bytes(bytes), "t");
      for (const auto& tensor : file.tensors()) {
        if (gguf_traits(tensor.type).dequantize == nullptr) continue;
        std::vector<float> out(static_cast<std::size_t>(tensor.numel()));
        file.dequantize(tensor, out);
      }
    } catch (const base::InputError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 500);
}

TEST(GgufWrite, RefusesWhatItCouldNotReadBack) {
  const TemporaryFolder folder;
  const std::vector<float> two{1, 2};
  const auto error = [&](std::vector<std::pair<std::string, GgufValue>> metadata,
                         std::vector<GgufTensorToWrite> tensors) {
    return input_error([&] { write_gguf(folder / "x.gguf", metadata, tensors); });
  };
  const GgufTensorToWrite good{"x", GgufType::kF32, {2}, bytes_of(two)};
  EXPECT_MENTIONS(error({}, {{"x", GgufType::kF32, {3}, bytes_of(two)}}), "takes 12 bytes, 8 are given");
  EXPECT_MENTIONS(error({}, {good, good}), "tensor 'x' is given twice");
  EXPECT_MENTIONS(error({{"k", true}, {"k", true}}, {}), "metadata 'k' is given twice");
  EXPECT_MENTIONS(error({{"general.alignment", std::uint32_t{3}}}, {good}), "power of two");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace gantry::formats
