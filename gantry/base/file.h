#pragma once
// Files: read-only memory maps, and writes that either finish whole or leave the old file as it was.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace gantry::base {

/// A whole file mapped read-only. Movable, not copyable; the bytes live as long as the object.
class MappedFile {
 public:
  /// Throws InputError when the file is missing, unreadable or not a regular file. An empty file maps to an empty span.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// The whole file as a string; throws InputError if it is missing or larger than `max_bytes`.
std::string read_text_file(const std::filesystem::path& path, std::uint64_t max_bytes = std::uint64_t{1} << 30);

/// Writes `path` by way of a temporary file in the same folder: write, fsync, rename. Until commit() succeeds an older
/// file of that name stays untouched; a destroyed, uncommitted writer removes its temporary file.
class AtomicFile {
 public:
  /// Throws Error when the folder cannot be written (the message names it).
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends; throws Error ("no space left ...") when the disk is full.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  /// Current length in bytes.
  std::uint64_t size() const { return size_; }
  /// fsync and rename over the target.
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

/// AtomicFile in one call.
void write_file_atomically(const std::filesystem::path& path, std::string_view text);

/// Makes a folder and its parents; throws Error naming it when that fails.
void make_directories(const std::filesystem::path& path);

}  // namespace gantry::base
