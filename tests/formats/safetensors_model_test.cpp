// Folders of shards: writing, reading back, and every way in which an index can be wrong.
#include <gtest/gtest.h>

#include "gantry/formats/safetensors.h"
#include "tests/formats/test_files.h"

namespace gantry::formats {
namespace {

using testing::bytes_of;
using testing::input_error;
using testing::read_raw;
using testing::TemporaryFolder;
using testing::write_raw;

const std::vector<float> kFour{1, 2, 3, 4};
const std::vector<float> kTwo{5, 6};
const std::vector<std::uint8_t> kBytes{7, 8, 9};

std::vector<TensorToWrite> three_tensors() {
  return {{"small", DType::kU8, {3}, bytes_of(kBytes)},
          {"four", DType::kF32, {2, 2}, bytes_of(kFour)},
          {"two", DType::kF32, {2}, bytes_of(kTwo)}};
}

void expect_three_tensors(const SafetensorsModel& model) {
  for (const TensorToWrite& wanted : three_tensors()) {
    const TensorInfo& found = model.get(wanted.name);
    EXPECT_EQ(found.shape, wanted.shape);
    EXPECT_EQ(found.dtype, wanted.dtype);
    EXPECT_TRUE(std::ranges::equal(model.data(found), wanted.data)) << wanted.name;
  }
  EXPECT_EQ(model.tensors().size(), 3u);
  EXPECT_EQ(model.total_bytes(), 27u);
}

void write_sharded(const TemporaryFolder& folder) { write_safetensors_sharded(folder.path(), three_tensors(), 16); }

std::string open_error(const TemporaryFolder& folder) {
  return input_error([&] { SafetensorsModel::open(folder.path()); });
}

void write_index(const TemporaryFolder& folder, const std::string& weight_map) {
  write_raw(folder / "model.safetensors.index.json", R"({"weight_map":)" + weight_map + "}");
}

TEST(SafetensorsWrite, RoundTripsWithAlignedDataAndMetadata) {
  const TemporaryFolder folder;
  write_safetensors(folder / "x.safetensors", three_tensors(), {{"format", "pt"}, {"ключ", "\"quoted\"\n"}});
  const auto model = SafetensorsModel::open(folder / "x.safetensors");
  expect_three_tensors(model);
  EXPECT_EQ(model.metadata().at("ключ"), "\"quoted\"\n");
  for (const TensorInfo& tensor : model.tensors()) EXPECT_EQ(tensor.offset % dtype_bytes(tensor.dtype), 0u);
  EXPECT_EQ(model.tensors().front().offset % 8, 0u);
  EXPECT_EQ(model.tensors().back().name, "small") << "bytes go behind floats";
}

TEST(SafetensorsWrite, FillsTensorsOneAtATime) {
  const TemporaryFolder folder;
  TensorToWrite lazy{"lazy", DType::kU8, {4}};
  lazy.fill = [](std::span<std::byte> to) { std::fill(to.begin(), to.end(), std::byte{42}); };
  write_safetensors(folder / "x.safetensors", {lazy});
  const auto model = SafetensorsModel::open(folder / "x.safetensors");
  EXPECT_EQ(model.data(model.get("lazy"))[3], std::byte{42});
}

TEST(SafetensorsWrite, RefusesWhatItCouldNotReadBack) {
  const TemporaryFolder folder;
  const auto error = [&](const TensorToWrite& tensor) {
    return input_error([&] { write_safetensors(folder / "x.safetensors", {tensor}); });
  };
  EXPECT_MENTIONS(error({"x", DType::kF32, {3}, bytes_of(kTwo)}), "takes 12 bytes, 8 are given");
  EXPECT_MENTIONS(error({"x", DType::kF32, {-1}, bytes_of(kTwo)}), "overflows");
  EXPECT_MENTIONS(error({"__metadata__", DType::kF32, {2}, bytes_of(kTwo)}), "__metadata__");
  EXPECT_MENTIONS(error({"\xff", DType::kF32, {2}, bytes_of(kTwo)}), "UTF-8");
  const TensorToWrite twice{"x", DType::kF32, {2}, bytes_of(kTwo)};
  EXPECT_MENTIONS(input_error([&] { write_safetensors(folder / "x.safetensors", {twice, twice}); }), "twice");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << "nothing is left behind";
}

TEST(SafetensorsShards, RoundTripWithHuggingFaceNames) {
  const TemporaryFolder folder;
  write_sharded(folder);
  for (const char* name :
       {"model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors", "model.safetensors.index.json"}) {
    EXPECT_TRUE(std::filesystem::exists(folder / name)) << name;
  }
  expect_three_tensors(SafetensorsModel::open(folder.path()));
  expect_three_tensors(SafetensorsModel::open(folder / "model.safetensors.index.json"));
  EXPECT_MENTIONS(read_raw(folder / "model.safetensors.index.json"), "\"total_size\": 27");
}

TEST(SafetensorsShards, ReplaceAnOlderLayoutWithoutLeftovers) {
  const TemporaryFolder folder;
  write_sharded(folder);
  write_raw(folder / "model-note.txt", "not ours");
  write_safetensors_sharded(folder.path(), three_tensors(), 1000);
  EXPECT_TRUE(std::filesystem::exists(folder / "model.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(folder / "model.safetensors.index.json"));
  EXPECT_FALSE(std::filesystem::exists(folder / "model-00001-of-00003.safetensors"));
  EXPECT_TRUE(std::filesystem::exists(folder / "model-note.txt"));
  write_sharded(folder);
  EXPECT_FALSE(std::filesystem::exists(folder / "model.safetensors"));
  expect_three_tensors(SafetensorsModel::open(folder.path()));
}

TEST(SafetensorsShards, ReadInParallelIntoMemory) {
  const TemporaryFolder folder;
  std::vector<std::uint32_t> big(3'000'000);
  for (std::size_t i = 0; i < big.size(); ++i) big[i] = static_cast<std::uint32_t>(i * 2654435761u);
  write_safetensors_sharded(
      folder.path(), {{"big", DType::kU32, {3'000'000}, bytes_of(big)}, {"two", DType::kF32, {2}, bytes_of(kTwo)}},
      1 << 20);
  const auto model = SafetensorsModel::open(folder.path());
  model.prefetch();
  std::vector<std::uint32_t> read(big.size());
  std::vector<float> two(2);
  const std::vector<TensorRead> reads{{&model.get("big"), std::as_writable_bytes(std::span(read))},
                                      {&model.get("two"), std::as_writable_bytes(std::span(two))}};
  model.read_parallel(reads);
  EXPECT_EQ(read, big);
  EXPECT_EQ(two, kTwo);
  const std::vector<TensorRead> wrong{{&model.get("two"), std::as_writable_bytes(std::span(read))}};
  EXPECT_MENTIONS(input_error([&] { model.read_parallel(wrong); }), "has 8 bytes");
}

TEST(SafetensorsShards, NameWhatIsMissing) {
  const TemporaryFolder folder;
  EXPECT_MENTIONS(open_error(folder), "found neither");
  write_sharded(folder);
  EXPECT_MENTIONS(input_error([&] { SafetensorsModel::open(folder.path()).get("nix"); }), "'nix' is missing");
  std::filesystem::remove(folder / "model-00002-of-00003.safetensors");
  EXPECT_MENTIONS(open_error(folder), "shard 'model-00002-of-00003.safetensors' is missing");
}

TEST(SafetensorsShards, RefuseNamesThatLeaveTheFolder) {
  const TemporaryFolder folder;
  for (const char* name : {"../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", "", "a\\\\b.safetensors",
                           "x.bin", "a\\u0000.safetensors"}) {
    write_index(folder, std::string(R"({"t":")") + name + R"("})");
    EXPECT_MENTIONS(open_error(folder), "is refused") << name;
  }
}

TEST(SafetensorsShards, RefuseAnIndexThatDisagrees) {
  const TemporaryFolder folder;
  write_safetensors(folder / "a.safetensors", {{"two", DType::kF32, {2}, bytes_of(kTwo)}});
  write_safetensors(folder / "b.safetensors", {{"four", DType::kF32, {4}, bytes_of(kFour)}});
  write_index(folder, R"({"two":"a.safetensors","five":"b.safetensors"})");
  EXPECT_MENTIONS(open_error(folder), "'five' is said to be in 'b.safetensors'");
  write_safetensors(folder / "b.safetensors",
                    {{"four", DType::kF32, {4}, bytes_of(kFour)}, {"extra", DType::kF32, {2}, bytes_of(kTwo)}});
  write_index(folder, R"({"two":"a.safetensors","four":"b.safetensors"})");
  EXPECT_MENTIONS(open_error(folder), "'extra' of");
  write_safetensors(folder / "b.safetensors",
                    {{"four", DType::kF32, {4}, bytes_of(kFour)}, {"two", DType::kF32, {2}, bytes_of(kTwo)}});
  EXPECT_MENTIONS(open_error(folder), "'two' is in two shards");
  write_index(folder, "3");
  EXPECT_MENTIONS(open_error(folder), "'weight_map' has the wrong type");
  write_raw(folder / "model.safetensors.index.json", "{\"weight_map\":{");
  EXPECT_MENTIONS(open_error(folder), "not valid JSON");
}

TEST(SafetensorsShards, RefuseAnAbsurdNumberOfShards) {
  const TemporaryFolder folder;
  std::vector<TensorToWrite> tensors;
  for (int i = 0; i < 600; ++i) tensors.push_back({std::to_string(i), DType::kF32, {2}, bytes_of(kTwo)});
  EXPECT_MENTIONS(input_error([&] { write_safetensors_sharded(folder.path(), tensors, 8); }), "raise the shard size");
}

}  // namespace
}  // namespace gantry::formats
