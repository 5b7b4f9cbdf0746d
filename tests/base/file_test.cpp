#include "gantry/base/file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <utility>

#include "gantry/base/check.h"
#include "tests/base/test_support.h"

namespace gantry::base {
namespace {

using testing::contains;
using testing::message_of;
using testing::read_raw;
using testing::TemporaryFolder;
using testing::write_raw;

/// Runs `body` in a child process; its return value becomes the exit code.
template <class Body>
int run_in_child(Body&& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST(MappedFile, ShowsTheBytesAndMoves) {
  const TemporaryFolder folder;
  write_raw(folder / "a", "hello");
  MappedFile first(folder / "a");
  EXPECT_EQ(first.text(), "hello");
  MappedFile second(std::move(first));
  EXPECT_EQ(second.text(), "hello");
  EXPECT_TRUE(first.bytes().empty());  // NOLINT(bugprone-use-after-move): the moved-from state is promised
  write_raw(folder / "b", "other");
  second = MappedFile(folder / "b");
  EXPECT_EQ(second.text(), "other");
  EXPECT_EQ(second.path(), folder / "b");
}

TEST(MappedFile, EmptyFileIsAnEmptySpan) {
  const TemporaryFolder folder;
  write_raw(folder / "empty", "");
  EXPECT_TRUE(MappedFile(folder / "empty").bytes().empty());
}

TEST(MappedFile, RefusesMissingFilesAndFoldersByName) {
  const TemporaryFolder folder;
  const auto missing = folder / "missing";
  EXPECT_EQ(message_of<InputError>([&] { MappedFile file(missing); }),
            missing.string() + ": cannot open: No such file or directory");
  EXPECT_EQ(message_of<InputError>([&] { MappedFile file(folder.path()); }),
            folder.path().string() + ": expected a regular file, found another kind");
}

TEST(ReadTextFile, RefusesMoreThanTheLimit) {
  const TemporaryFolder folder;
  write_raw(folder / "a", "12345");
  EXPECT_EQ(read_text_file(folder / "a", 5), "12345");
  EXPECT_TRUE(contains(message_of<InputError>([&] { read_text_file(folder / "a", 4); }), "5 bytes, more than the 4"));
}

TEST(AtomicFile, CommitReplacesAndLeavesNothingBehind) {
  const TemporaryFolder folder;
  write_raw(folder / "a", "old");
  AtomicFile file(folder / "a");
  file.write("ne");
  file.write("w");
  EXPECT_EQ(file.size(), 3u);
  EXPECT_EQ(read_raw(folder / "a"), "old");
  file.commit();
  EXPECT_EQ(read_raw(folder / "a"), "new");
  EXPECT_EQ(folder.entries(), 1);
}

TEST(AtomicFile, UncommittedWriterKeepsTheOldFileAndRemovesItsOwn) {
  const TemporaryFolder folder;
  write_raw(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("half");
    EXPECT_EQ(folder.entries(), 2);
  }
  EXPECT_EQ(read_raw(folder / "a"), "old");
  EXPECT_EQ(folder.entries(), 1);
}

TEST(AtomicFile, TwoWritersOfOneFileDoNotMix) {
  const TemporaryFolder folder;
  AtomicFile first(folder / "a");
  AtomicFile second(folder / "a");
  first.write("first");
  second.write("second, longer");
  first.commit();
  EXPECT_EQ(read_raw(folder / "a"), "first");
  second.commit();
  EXPECT_EQ(read_raw(folder / "a"), "second, longer");
  EXPECT_EQ(folder.entries(), 1);
}

// A file size limit stands in for a full disk: write() fails in the middle in the same way (EFBIG for ENOSPC).
TEST(AtomicFile, FullDiskIsAnErrorAndTheOldFileSurvives) {
  const TemporaryFolder folder;
  write_raw(folder / "a", "old");
  const int code = run_in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{64 << 10, 64 << 10};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 10;
    try {
      write_file_atomically(folder / "a", std::string(1 << 20, 'x'));
    } catch (const InputError&) {
      return 11;
    } catch (const Error& error) {
      const std::string what = error.what();
      return contains(what, "write failed after 65536 bytes: File too large") && contains(what, "unchanged") ? 0 : 12;
    }
    return 13;
  });
  EXPECT_EQ(code, 0);
  EXPECT_EQ(read_raw(folder / "a"), "old");
  EXPECT_EQ(folder.entries(), 1);
}

TEST(AtomicFile, KilledWriterLeavesTheOldFile) {
  const TemporaryFolder folder;
  write_raw(folder / "a", "old");
  const int code = run_in_child([&] {
    AtomicFile file(folder / "a");
    file.write("half");
    ::raise(SIGKILL);
    return 0;
  });
  EXPECT_EQ(code, 128 + SIGKILL);
  EXPECT_EQ(read_raw(folder / "a"), "old");
}

TEST(AtomicFile, UnwritableFolderIsNamed) {
  // Permissions do not stop root, so the folder here is a regular file and then one of the kernel's own.
  const TemporaryFolder folder;
  write_raw(folder / "plain", "");
  const auto below = folder / "plain/child";
  EXPECT_EQ(message_of<Error>([&] { AtomicFile file(below); }),
            below.string() + ": cannot write: Not a directory. Choose a folder that exists and that you may write to");
  EXPECT_TRUE(
      contains(message_of<Error>([] { AtomicFile file("/proc/gantry-test"); }), "/proc/gantry-test: cannot write"));
}

TEST(AtomicFile, FailedRenameIsAnErrorAndCleansUp) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "taken/by-a-folder");
  AtomicFile file(folder / "taken");
  file.write("text");
  EXPECT_TRUE(contains(message_of<Error>([&] { file.commit(); }), "cannot finish writing"));
  EXPECT_EQ(folder.entries(), 1);
}

TEST(MakeDirectories, MakesParentsAndNamesWhatItCannotMake) {
  const TemporaryFolder folder;
  make_directories(folder / "a/b/c");
  make_directories(folder / "a/b/c");
  EXPECT_TRUE(std::filesystem::is_directory(folder / "a/b/c"));
  write_raw(folder / "plain", "");
  const auto below = folder / "plain/child";
  EXPECT_TRUE(
      contains(message_of<Error>([&] { make_directories(below); }), below.string() + ": cannot make this folder"));
}

}  // namespace
}  // namespace gantry::base
