#pragma once
// JSON Lines: one JSON document a line. A streaming reader for files and pipes, and a writer that only ever leaves
// whole lines behind.
//
// Errors: InputError "<file>:<line>: ..." for input; Error for failures to write.
#include <cstdint>
#include <filesystem>
#include <istream>
#include <memory>
#include <string>
#include <string_view>

#include "gantry/base/json.h"

namespace gantry::formats {

/// Longest line accepted unless the caller says otherwise.
inline constexpr std::uint64_t kMaxJsonlLineBytes = std::uint64_t{64} << 20;

/// Reads line by line, holding one line in memory. CRLF, blank lines, a byte-order mark and a missing last newline are
/// accepted.
class JsonlReader {
 public:
  explicit JsonlReader(const std::filesystem::path& path, std::uint64_t max_line_bytes = kMaxJsonlLineBytes);
  /// Reads from a stream that outlives the reader, such as std::cin; `source` starts every error message. A line is
  /// delivered as soon as it is complete.
  JsonlReader(std::istream& stream, std::string source, std::uint64_t max_line_bytes = kMaxJsonlLineBytes);

  /// The next document that is not blank; false at the end.
  bool next(base::Json& value);
  /// The next line that is not blank, without its ending and unparsed; valid until the next call.
  bool next_line(std::string_view& line);

  /// Number of the line delivered last, from 1.
  std::uint64_t line() const { return line_; }
  /// Bytes consumed so far; for progress and for resuming.
  std::uint64_t offset() const { return offset_; }
  /// "<file>:<line>", for messages about the content of the last line.
  std::string place() const;

 private:
  bool read_line();

  std::unique_ptr<std::istream> file_;
  std::istream* stream_;
  std::string source_;
  std::uint64_t max_line_bytes_;
  std::uint64_t line_ = 0;
  std::uint64_t offset_ = 0;
  std::string text_;
};

enum class JsonlMode {
  kReplace,  ///< starts an empty file
  kAppend,   ///< continues; a last line that an earlier process could not finish is removed first
};

/// Every write() hands one whole line to the operating system, so that a killed process loses at most the line it was
/// writing. Not for concurrent use.
class JsonlWriter {
 public:
  /// Throws Error when the file cannot be opened for writing.
  explicit JsonlWriter(std::filesystem::path path, JsonlMode mode = JsonlMode::kReplace);
  ~JsonlWriter();
  JsonlWriter(const JsonlWriter&) = delete;
  JsonlWriter& operator=(const JsonlWriter&) = delete;

  /// Appends a document on one line; bytes in strings that are not UTF-8 become U+FFFD. On failure (disk full) throws
  /// Error and takes back the part of the line that was written.
  void write(const base::Json& value);
  void write(const base::OrderedJson& value);
  /// Appends a line that holds a JSON document already; it must not contain a newline.
  void write_line(std::string_view line);
  /// Flushes to the disk itself (fsync).
  void sync();

 private:
  void repair_tail();

  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  std::string buffer_;
};

}  // namespace gantry::formats
