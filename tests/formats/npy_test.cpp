#include "gantry/formats/npy.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "gantry/base/half.h"
#include "tests/formats/test_files.h"

namespace gantry::formats {
namespace {

using testing::as_bytes;
using testing::bytes_of;
using testing::input_error;
using testing::raw;
using testing::read_raw;
using testing::TemporaryFolder;

const std::string kData = GANTRY_SOURCE_DIR "/tests/data/";
const std::vector<std::int64_t> kShape{2, 3, 4};

template <class T>
void expect_counting(const NpyArray& array, const std::string& what) {
  EXPECT_EQ(array.shape, kShape) << what;
  const auto values = array.values<T>();
  ASSERT_EQ(values.size(), 24u) << what;
  for (int i = 0; i < 24; ++i) {
    const int wanted = std::is_unsigned_v<T> ? (i - 4) & 255 : i - 4;
    EXPECT_EQ(values[static_cast<std::size_t>(i)], static_cast<T>(wanted)) << what << " " << i;
  }
}

TEST(NpzFile, ReadsEveryTypeAndOrderThatNumpyWrites) {
  const auto file = NpzFile::open(kData + "numpy_deflated.npz");
  EXPECT_EQ(file.names().size(), 25u);
  expect_counting<std::int8_t>(file.read("i1"), "i1");
  expect_counting<std::int16_t>(file.read("i2"), "i2");
  expect_counting<std::int32_t>(file.read("i4"), "i4");
  expect_counting<std::int64_t>(file.read("i8"), "i8");
  expect_counting<std::uint8_t>(file.read("u1"), "u1");
  expect_counting<std::uint16_t>(file.read("u2"), "u2");
  expect_counting<std::uint32_t>(file.read("u4"), "u4");
  expect_counting<std::uint64_t>(file.read("u8"), "u8");
  expect_counting<float>(file.read("f4"), "f4");
  expect_counting<double>(file.read("f8"), "f8");
  expect_counting<std::int16_t>(file.read("big_i2"), "big_i2");
  expect_counting<float>(file.read("big_f4"), "big_f4");
  expect_counting<double>(file.read("big_f8"), "big_f8");
  expect_counting<std::uint64_t>(file.read("big_u8"), "big_u8");
  expect_counting<float>(file.read("fortran"), "fortran");
}

TEST(NpzFile, ReadsHalvesComplexNumbersAndBooleans) {
  const auto file = NpzFile::open(kData + "numpy_deflated.npz");
  const auto half = file.read("f2");
  EXPECT_EQ(half.dtype, DType::kF16);
  std::uint16_t last;
  std::memcpy(&last, half.data.data() + 46, 2);
  EXPECT_EQ(base::fp16_to_float(last), 19.0f);
  for (const char* name : {"c8", "big_c8"}) {
    const auto complex = file.read(name);
    EXPECT_EQ(complex.dtype, DType::kC64);
    float parts[2];
    std::memcpy(parts, complex.data.data() + 23 * 8, 8);
    EXPECT_EQ(parts[0], 19.0f) << name;
    EXPECT_EQ(parts[1], 0.0f) << name;
  }
  const auto boolean = file.read("bool");
  EXPECT_TRUE(boolean.values<bool>()[0]);
  EXPECT_FALSE(boolean.values<bool>()[1]);
}

TEST(NpzFile, ReadsScalarsVectorsAndEmptyArrays) {
  const auto file = NpzFile::open(kData + "numpy_deflated.npz");
  EXPECT_TRUE(file.read("scalar").shape.empty());
  EXPECT_EQ(file.read("scalar").values<double>()[0], 2.5);
  EXPECT_EQ(file.read("empty").shape, (std::vector<std::int64_t>{0, 3}));
  EXPECT_EQ(file.read("empty").numel(), 0);
  EXPECT_EQ(file.read("vector").values<std::int32_t>()[4], 4);
}

TEST(NpzFile, ReadsStoredMembers) {
  const auto file = NpzFile::open(kData + "numpy_stored.npz");
  expect_counting<float>(file.read("f4"), "f4");
  expect_counting<double>(file.read("big_f8"), "big_f8");
  expect_counting<float>(file.read("fortran"), "fortran");
}

TEST(NpzFile, NamesWhatItCannotRead) {
  const auto file = NpzFile::open(kData + "numpy_deflated.npz");
  EXPECT_MENTIONS(input_error([&] { file.read("nix"); }), "array 'nix' is missing");
  EXPECT_MENTIONS(input_error([&] { file.read("text"); }), "numpy_deflated.npz[text]: element type '<U2'");
  EXPECT_MENTIONS(input_error([&] { file.read("structured"); }), "structured .npy arrays are not supported");
  EXPECT_MENTIONS(input_error([&] { file.read("object"); }), "arrays of Python objects are not supported");
  EXPECT_MENTIONS(input_error([&] { file.read("f4", 10); }), "more than the 10 accepted here");
  EXPECT_MENTIONS(input_error([&] { file.read("f4").values<double>(); }), "expected an array of F64, found F32");
}

TEST(Npy, ReadsFormatVersion3) { expect_counting<double>(read_npy(kData + "numpy_v3.npy"), "v3"); }

TEST(Npy, RoundTripsEveryShape) {
  const TemporaryFolder folder;
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  for (const std::vector<std::int64_t>& shape : {std::vector<std::int64_t>{6}, {2, 3}, {1, 6, 1}, {1, 1, 2, 1, 3}}) {
    write_npy(folder / "x.npy", {"", DType::kF32, shape, bytes_of(values)});
    const auto array = read_npy(folder / "x.npy");
    EXPECT_EQ(array.shape, shape);
    EXPECT_TRUE(std::ranges::equal(array.values<float>(), values));
  }
  write_npy(folder / "x.npy", {"", DType::kF32, {}, bytes_of(values).first(4)});
  EXPECT_EQ(read_npy(folder / "x.npy").values<float>()[0], 1.0f);
  EXPECT_EQ((read_raw(folder / "x.npy").size() - 4) % 64, 0u) << "data starts aligned";
}

TEST(Npz, RoundTripsAndIsReproducible) {
  const TemporaryFolder folder;
  const std::vector<double> a{1.5, 2.5};
  const std::vector<std::uint8_t> b{7, 8, 9};
  const std::vector<NpyToWrite> arrays{{"a", DType::kF64, {2}, bytes_of(a)},
                                       {"weird/имя", DType::kU8, {3, 1}, bytes_of(b)},
                                       {"empty", DType::kU8, {0}, {}}};
  write_npz(folder / "x.npz", arrays);
  write_npz(folder / "y.npz", arrays);
  EXPECT_EQ(read_raw(folder / "x.npz"), read_raw(folder / "y.npz"));
  const auto file = NpzFile::open(folder / "x.npz");
  EXPECT_EQ(file.names(), (std::vector<std::string>{"a", "empty", "weird/имя"}));
  EXPECT_TRUE(std::ranges::equal(file.read("a").values<double>(), a));
  EXPECT_TRUE(std::ranges::equal(file.read("weird/имя").values<std::uint8_t>(), b));
  EXPECT_EQ(file.read("empty").numel(), 0);
}

TEST(Npy, WriterRefusesWhatItCouldNotReadBack) {
  const TemporaryFolder folder;
  const std::vector<float> two{1, 2};
  const auto error = [&](const NpyToWrite& array) { return input_error([&] { write_npy(folder / "x.npy", array); }); };
  EXPECT_MENTIONS(error({"", DType::kBF16, {4}, bytes_of(two)}), "NumPy has no type for BF16");
  EXPECT_MENTIONS(error({"", DType::kF32, {3}, bytes_of(two)}), "does not take the 8 bytes given");
  const NpyToWrite good{"a", DType::kF32, {2}, bytes_of(two)};
  EXPECT_MENTIONS(input_error([&] { write_npz(folder / "x.npz", {good, good}); }), "'a' is given twice");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

std::string npy(std::string_view text, std::size_t data_bytes, char major = 1) {
  std::string out = std::string("\x93NUMPY") + major + '\0';
  out += major == 1 ? raw(static_cast<std::uint16_t>(text.size())) : raw(static_cast<std::uint32_t>(text.size()));
  return out + std::string(text) + std::string(data_bytes, '\1');
}

struct BadNpy {
  const char* what;
  std::string image;
  const char* message;
};

class NpyBad : public ::testing::TestWithParam<BadNpy> {};

TEST_P(NpyBad, IsRefusedWithItsReason) {
  const std::string message = input_error([&] { parse_npy(as_bytes(GetParam().image), "t.npy"); });
  EXPECT_MENTIONS(message, GetParam().message);
  EXPECT_MENTIONS(message, "t.npy");
}

std::string dict(std::string_view shape, std::string_view descr = "'<f4'") {
  return "{'descr': " + std::string(descr) + ", 'fortran_order': False, 'shape': " + std::string(shape) + "}";
}

INSTANTIATE_TEST_SUITE_P(
    Rows, NpyBad,
    ::testing::Values(BadNpy{"empty", "", "not a .npy file"}, BadNpy{"version 9", npy("{}", 0, 9), "format 9"},
                      BadNpy{"header length", npy(dict("(1,)"), 4).substr(0, 40), "truncated"},
                      BadNpy{"header length huge", std::string("\x93NUMPY\x02\0", 8) + raw(~0u) + "{}",
                             "more than 1048576"},
                      BadNpy{"no dictionary", npy("[]", 0), "expected '{'"},
                      BadNpy{"unfinished", npy("{'descr': '<f4'", 0), "expected ','"},
                      BadNpy{"unfinished string", npy("{'descr", 0), "ends inside a string"},
                      BadNpy{"missing key", npy("{'descr': '<f4', 'shape': (1,)}", 4), "needs descr"},
                      BadNpy{"key twice", npy("{'descr': '<f4', 'descr': '<f4'}", 4), "'descr' twice"},
                      BadNpy{"unknown key", npy("{'x': 1}", 0), "unknown key 'x'"},
                      BadNpy{"text behind", npy(dict("(1,)") + "x", 4), "text after"},
                      BadNpy{"order", npy("{'fortran_order': 0}", 4), "must be True or False"},
                      BadNpy{"negative size", npy(dict("(-1,)"), 4), "shape must hold sizes"},
                      BadNpy{"size past int64", npy(dict("(99999999999999999999,)"), 4), "shape must hold sizes"},
                      BadNpy{"fractional size", npy(dict("(1.5,)"), 4), "expected ','"},
                      BadNpy{"product overflows", npy(dict("(4294967296, 4294967296)"), 4), "overflows"},
                      BadNpy{"truncated data", npy(dict("(2,)"), 4), "takes 8 bytes, the file holds 4"},
                      BadNpy{"extra data", npy(dict("(1,)"), 8), "4 bytes of data after"},
                      BadNpy{"type unknown", npy(dict("(1,)", "'<f3'"), 3), "'<f3' is not supported"},
                      BadNpy{"type empty", npy(dict("(1,)", "''"), 3), "'' is not supported"},
                      BadNpy{"object", npy(dict("(1,)", "'|O'"), 8), "Python objects"},
                      BadNpy{"structured", npy(dict("(1,)", "[('a', '<f4')]"), 4), "structured"}),
    [](const auto& row) {
      std::string name = row.param.what;
      std::replace(name.begin(), name.end(), ' ', '_');
      return name;
    });

TEST(Npy, LimitsTheNumberOfDimensions) {
  std::string shape = "(";
  for (int i = 0; i < 100; ++i) shape += "1, ";
  const std::string image = npy(dict(shape + ")"), 4);
  EXPECT_MENTIONS(input_error([&] { parse_npy(as_bytes(image), "t"); }), "more than 64 dimensions");
}

/// Reads all members of an image; the number that could not be read, or -1 when the directory itself was refused.
int unreadable_members(std::string_view image) {
  try {
    const auto file = NpzFile::parse(as_bytes(image), "t.npz");
    int refused = 0;
    for (const auto& name : file.names()) {
      try {
        file.read(name, 1 << 20);
      } catch (const base::InputError&) {
        ++refused;
      }
    }
    return refused;
  } catch (const base::InputError&) {
    return -1;
  }
}

TEST(NpzFile, RefusesTruncationAtEveryLength) {
  const std::string good = read_raw(kData + "numpy_stored.npz");
  for (std::size_t length = 0; length < good.size(); ++length) {
    EXPECT_EQ(unreadable_members(std::string_view(good).substr(0, length)), -1) << length;
  }
}

TEST(NpzFile, ReportsDamagedDataByItsChecksum) {
  const TemporaryFolder folder;
  const std::vector<double> values(8, 1.5);
  write_npz(folder / "x.npz", {{"a", DType::kF64, {8}, bytes_of(values)}});
  std::string image = read_raw(folder / "x.npz");
  image[200] = static_cast<char>(image[200] ^ 4);
  const auto file = NpzFile::parse(as_bytes(image), "t.npz");
  EXPECT_MENTIONS(input_error([&] { file.read("a"); }), "t.npz[a]: damaged: checksum differs");
}

TEST(NpzFile, SurvivesBitFlipsOfDeflatedArchives) {
  const std::string good = read_raw(kData + "numpy_deflated.npz");
  ASSERT_EQ(unreadable_members(good), 3);
  int noticed = 0;
  for (std::size_t bit = 0; bit < good.size() * 8; bit += 7) {
    std::string image = good;
    image[bit / 8] = static_cast<char>(image[bit / 8] ^ (1 << (bit % 8)));
    noticed += unreadable_members(image) != 3 ? 1 : 0;
  }
  EXPECT_GT(noticed, 1000);
}

TEST(NpzFile, RefusesSizesThatCannotBe) {
  const TemporaryFolder folder;
  const std::vector<double> values(8, 1.5);
  write_npz(folder / "x.npz", {{"a", DType::kF64, {8}, bytes_of(values)}});
  const std::string good = read_raw(folder / "x.npz");
  const std::size_t central = good.find("PK\x01\x02");
  const auto with = [&](std::size_t at, const std::string& bytes) {
    std::string image = good;
    image.replace(at, bytes.size(), bytes);
    return image;
  };
  const auto error = [&](const std::string& image) {
    return input_error([&] { NpzFile::parse(as_bytes(image), "t.npz").read("a"); });
  };
  // A bomb: deflated, 4 GiB said to be in a few bytes.
  std::string bomb = with(central + 10, raw<std::uint16_t>(8));
  bomb.replace(central + 24, 4, raw<std::uint32_t>(0xfffffff0));
  EXPECT_MENTIONS(error(bomb), "cannot unpack to");
  EXPECT_MENTIONS(error(with(central + 24, raw<std::uint32_t>(0xfffffff0))), "stored sizes");
  EXPECT_MENTIONS(error(with(central + 42, raw<std::uint32_t>(0xfffffff0))), "outside the file");
  EXPECT_MENTIONS(error(with(central + 10, raw<std::uint16_t>(12))), "ZIP method 12 is not supported");
  EXPECT_MENTIONS(error(with(central + 8, raw<std::uint16_t>(1))), "encrypted");
  EXPECT_MENTIONS(error(with(good.size() - 12, raw<std::uint16_t>(0xfff0))), "claims 65520 members");
  EXPECT_MENTIONS(error(with(good.size() - 6, raw<std::uint32_t>(7))), "damaged ZIP directory");
}

}  // namespace
}  // namespace gantry::formats
