// Disks that are full and folders that may not be written to: every writer fails with one clear Error, and an older
// file stays as it was. A full disk is played by a limit on file sizes in a child process.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "gantry/formats/gguf.h"
#include "gantry/formats/jsonl.h"
#include "gantry/formats/npy.h"
#include "gantry/formats/safetensors.h"
#include "tests/formats/test_files.h"

namespace gantry::formats {
namespace {

using testing::bytes_of;
using testing::read_raw;
using testing::TemporaryFolder;
using testing::write_raw;

/// Runs `body` in a child process after `prepare`; returns the message of the Error that it throws.
std::string error_in_child(const std::function<void()>& prepare, const std::function<void()>& body) {
  int channel[2];
  if (::pipe(channel) != 0) throw base::Error("pipe failed");
  const pid_t child = ::fork();
  if (child == 0) {
    std::string message = "nothing was thrown";
    try {
      prepare();
      body();
    } catch (const base::InputError& error) {
      message = std::string("InputError, not Error: ") + error.what();
    } catch (const base::Error& error) {
      message = error.what();
    }
    [[maybe_unused]] const auto written = ::write(channel[1], message.data(), message.size());
    ::_exit(0);
  }
  ::close(channel[1]);
  std::string message;
  char buffer[4096];
  for (ssize_t count; (count = ::read(channel[0], buffer, sizeof(buffer))) > 0;) message.append(buffer, count);
  ::close(channel[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status)) << "the child died of a signal";
  return message;
}

void limit_file_size() {
  ::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{64 << 10, 64 << 10};
  if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) throw base::Error("setrlimit failed");
}

const std::vector<float> kLarge(100'000, 1.0f);

struct Writer {
  const char* name;
  const char* file;
  std::function<void(const std::filesystem::path& folder)> write;
};

const Writer kWriters[] = {
    {"safetensors", "x.safetensors",
     [](const auto& folder) {
       write_safetensors(folder / "x.safetensors", {{"x", DType::kF32, {100'000}, bytes_of(kLarge)}});
     }},
    {"safetensors_shards", "model-00001-of-00002.safetensors",
     [](const auto& folder) {
       write_safetensors_sharded(
           folder,
           {{"small", DType::kF32, {10}, bytes_of(kLarge).first(40)}, {"x", DType::kF32, {100'000}, bytes_of(kLarge)}},
           1000);
     }},
    {"gguf", "x.gguf",
     [](const auto& folder) {
       write_gguf(folder / "x.gguf", {}, {{"x", GgufType::kF32, {100'000}, bytes_of(kLarge)}});
     }},
    {"npy", "x.npy",
     [](const auto& folder) {
       write_npy(folder / "x.npy", {"", DType::kF32, {100'000}, bytes_of(kLarge)});
     }},
    {"npz", "x.npz",
     [](const auto& folder) {
       write_npz(folder / "x.npz", {{"x", DType::kF32, {100'000}, bytes_of(kLarge)}});
     }},
};

class DiskTest : public ::testing::TestWithParam<Writer> {};

TEST_P(DiskTest, AFullDiskLeavesTheOlderFileAndNothingElse) {
  const TemporaryFolder folder;
  write_raw(folder / GetParam().file, "older");
  const std::string message = error_in_child(limit_file_size, [&] { GetParam().write(folder.path()); });
  EXPECT_MENTIONS(message, "write failed after");
  EXPECT_MENTIONS(message, folder.path().string());
  EXPECT_EQ(read_raw(folder / GetParam().file), "older");
  int files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path())) ++files;
  EXPECT_EQ(files, 1) << "no temporary file is left";
}

TEST_P(DiskTest, AReadOnlyFolderIsNamed) {
  const TemporaryFolder folder;
  ::chmod(folder.path().c_str(), 0555);
  const auto become_nobody = [] {
    // Root may write anywhere.
    if (::geteuid() == 0 && ::setuid(65534) != 0) throw base::Error("setuid failed");
  };
  const std::string message = error_in_child(become_nobody, [&] { GetParam().write(folder.path()); });
  ::chmod(folder.path().c_str(), 0755);
  EXPECT_MENTIONS(message, "cannot write: Permission denied");
  EXPECT_MENTIONS(message, folder.path().string());
}

TEST_P(DiskTest, AMissingFolderIsNamed) {
  const std::string message = error_in_child([] {}, [&] { GetParam().write("/nonexistent-gantry"); });
  EXPECT_MENTIONS(message, "/nonexistent-gantry");
  EXPECT_MENTIONS(message, "Choose a folder that exists");
}

INSTANTIATE_TEST_SUITE_P(Writers, DiskTest, ::testing::ValuesIn(kWriters),
                         [](const auto& row) { return std::string(row.param.name); });

TEST(JsonlDisk, AFullDiskTakesBackThePartOfALine) {
  const TemporaryFolder folder;
  const std::string line(40'000, '1');
  const std::string message = error_in_child(limit_file_size, [&] {
    JsonlWriter writer(folder / "x.jsonl");
    writer.write_line(line);
    writer.write_line(line);
  });
  EXPECT_MENTIONS(message, "x.jsonl: write failed after 40001 bytes");
  EXPECT_EQ(read_raw(folder / "x.jsonl"), line + "\n");
}

TEST(JsonlDisk, AFullDeviceIsNamed) {
  const std::string message = error_in_child([] {}, [] { JsonlWriter("/dev/full").write(base::Json(1)); });
  EXPECT_MENTIONS(message, "/dev/full: write failed after 0 bytes: No space left on device");
}

}  // namespace
}  // namespace gantry::formats
