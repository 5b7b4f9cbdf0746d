#include "gantry/formats/jsonl.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "gantry/base/check.h"
#include "gantry/base/file.h"

namespace gantry::formats {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

std::string reason() { return std::strerror(errno); }

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r") == text.npos; }

std::unique_ptr<std::istream> open_file(const fs::path& path) {
  std::error_code ignored;
  // Opening a folder as a stream succeeds and then looks like an empty file.
  GANTRY_CHECK(!fs::is_directory(path, ignored), "{}: expected a file, found a folder", path.string());
  auto file = std::make_unique<std::ifstream>(path, std::ios::binary);
  if (!*file) base::fail_input("{}: cannot open: {}", path.string(), reason());
  return file;
}

template <class AnyJson>
std::string one_line(const AnyJson& value) {
  return value.dump(-1, ' ', false, AnyJson::error_handler_t::replace);
}

}  // namespace

JsonlReader::JsonlReader(const fs::path& path, std::uint64_t max_line_bytes)
    : file_(open_file(path)), stream_(file_.get()), source_(path.string()), max_line_bytes_(max_line_bytes) {}

JsonlReader::JsonlReader(std::istream& stream, std::string source, std::uint64_t max_line_bytes)
    : stream_(&stream), source_(std::move(source)), max_line_bytes_(max_line_bytes) {}

std::string JsonlReader::place() const { return fmt::format("{}:{}", source_, line_); }

bool JsonlReader::read_line() {
  // Character by character through the stream's buffer: std::getline has no limit, and read() would wait for a full
  // block of a pipe.
  using Traits = std::istream::traits_type;
  text_.clear();
  std::streambuf& buffer = *stream_->rdbuf();
  auto character = buffer.sbumpc();
  if (Traits::eq_int_type(character, Traits::eof())) return false;
  ++line_;
  for (; !Traits::eq_int_type(character, Traits::eof()); character = buffer.sbumpc()) {
    ++offset_;
    if (character == '\n') break;
    GANTRY_CHECK(text_.size() < max_line_bytes_, "{}: line longer than the {} bytes accepted here", place(),
                 max_line_bytes_);
    text_.push_back(Traits::to_char_type(character));
  }
  if (text_.ends_with('\r')) text_.pop_back();
  if (line_ == 1 && text_.starts_with(kByteOrderMark)) text_.erase(0, kByteOrderMark.size());
  return true;
}

bool JsonlReader::next_line(std::string_view& line) {
  while (read_line()) {
    if (is_blank(text_)) continue;
    line = text_;
    return true;
  }
  return false;
}

bool JsonlReader::next(base::Json& value) {
  std::string_view line;
  if (!next_line(line)) return false;
  value = base::parse_json(line, place());
  return true;
}

JsonlWriter::JsonlWriter(fs::path path, JsonlMode mode) : path_(std::move(path)) {
  if (mode == JsonlMode::kAppend) repair_tail();
  const int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (mode == JsonlMode::kReplace ? O_TRUNC : 0);
  descriptor_ = ::open(path_.c_str(), flags, 0644);
  struct stat status {};
  if (descriptor_ < 0 || ::fstat(descriptor_, &status) != 0) {
    const std::string why = reason();
    if (descriptor_ >= 0) ::close(descriptor_);
    base::fail("{}: cannot write: {}. Choose a folder that exists and that you may write to", path_.string(), why);
  }
  size_ = static_cast<std::uint64_t>(status.st_size);
}

JsonlWriter::~JsonlWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void JsonlWriter::repair_tail() {
  std::error_code ignored;
  if (!fs::is_regular_file(path_, ignored)) return;
  std::uint64_t whole = 0;
  bool complete = false;
  {
    const base::MappedFile file(path_);
    const std::string_view text = file.text();
    if (text.empty() || text.ends_with('\n')) return;
    const auto newline = text.rfind('\n');
    whole = newline == text.npos ? 0 : newline + 1;
    // A last line without an ending may still be a whole document, from another program or an editor.
    complete = base::Json::accept(text.substr(whole));
  }
  if (complete) {
    std::ofstream(path_, std::ios::binary | std::ios::app) << '\n';
  } else if (::truncate(path_.c_str(), static_cast<off_t>(whole)) != 0) {
    base::fail("{}: cannot remove the unfinished last line: {}", path_.string(), reason());
  }
}

void JsonlWriter::write(const base::Json& value) { write_line(one_line(value)); }

void JsonlWriter::write(const base::OrderedJson& value) { write_line(one_line(value)); }

void JsonlWriter::write_line(std::string_view line) {
  GANTRY_CHECK(line.find('\n') == line.npos, "{}: a JSON line cannot contain a newline", path_.string());
  buffer_.assign(line);
  buffer_ += '\n';
  std::string_view left = buffer_;
  while (!left.empty()) {
    const ssize_t written = ::write(descriptor_, left.data(), left.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      const std::string why = reason();
      [[maybe_unused]] const int undone = ::ftruncate(descriptor_, static_cast<off_t>(size_));
      base::fail("{}: write failed after {} bytes: {}", path_.string(), size_, why);
    }
    left.remove_prefix(static_cast<std::size_t>(written));
  }
  size_ += buffer_.size();
}

void JsonlWriter::sync() {
  if (::fsync(descriptor_) != 0) base::fail("{}: cannot flush to disk: {}", path_.string(), reason());
}

}  // namespace gantry::formats
