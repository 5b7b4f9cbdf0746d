#include "gantry/text/dataset_source.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <istream>

#include "gantry/formats/jsonl.h"
#include "gantry/text/utf8.h"

namespace gantry::text {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 4> kTextEndings = {".txt", ".md", ".text", ".rst"};
constexpr std::array<std::string_view, 2> kJsonlEndings = {".jsonl", ".ndjson"};

/// The ending below .gz, in lower case.
std::string ending(const fs::path& path) {
  std::string text = path.extension().string();
  if (text == ".gz") text = path.stem().extension().string();
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

template <std::size_t count>
bool is_one_of(const std::string& text, const std::array<std::string_view, count>& choices) {
  return std::find(choices.begin(), choices.end(), text) != choices.end();
}

SourceFile describe(const fs::path& path, bool named) {
  SourceFile file;
  file.path = path;
  file.named = named;
  file.jsonl = is_one_of(ending(path), kJsonlEndings);
  std::error_code error;
  file.bytes = fs::file_size(path, error);
  if (error) base::fail_input("{}: cannot read: {}", path.string(), error.message());
  const auto time = fs::last_write_time(path, error);
  if (error) base::fail_input("{}: cannot read: {}", path.string(), error.message());
  file.modified_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
  return file;
}

std::vector<SourceFile> search_folder(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  fs::recursive_directory_iterator at(folder, error);
  for (; !error && at != fs::recursive_directory_iterator(); at.increment(error)) {
    std::error_code ignored;
    const std::string name = at->path().filename().string();
    if (name.starts_with(".") && at->is_directory(ignored)) at.disable_recursion_pending();
    if (name.starts_with(".") || !at->is_regular_file(ignored)) continue;
    const std::string kind = ending(at->path());
    if (is_one_of(kind, kTextEndings) || is_one_of(kind, kJsonlEndings)) found.push_back(at->path());
  }
  if (error) base::fail_input("{}: cannot list this folder: {}", folder.string(), error.message());
  GANTRY_CHECK(!found.empty(),
               "{}: no text files in this folder; expected .txt, .md, .text, .rst, .jsonl or .ndjson, "
               "also with .gz",
               folder.string());
  std::sort(found.begin(), found.end());
  std::vector<SourceFile> files;
  for (const fs::path& path : found) files.push_back(describe(path, false));
  return files;
}

/// Bytes of a file, unpacked where they are gzip data (zlib passes others through).
class GzipBuffer : public std::streambuf {
 public:
  explicit GzipBuffer(const fs::path& path) : path_(path), file_(gzopen(path.c_str(), "rb")), buffer_(1 << 16) {
    if (file_ == nullptr) base::fail_input("{}: cannot open: {}", path.string(), std::strerror(errno));
  }
  ~GzipBuffer() override { gzclose(file_); }
  GzipBuffer(const GzipBuffer&) = delete;
  GzipBuffer& operator=(const GzipBuffer&) = delete;

 protected:
  int_type underflow() override {
    const int count = gzread(file_, buffer_.data(), static_cast<unsigned>(buffer_.size()));
    int code = Z_OK;
    const char* reason = gzerror(file_, &code);
    // A file that ends in the middle of its data reads short without an error at first; Z_BUF_ERROR tells.
    if (count < 0 || code == Z_BUF_ERROR || (code != Z_OK && code != Z_STREAM_END)) {
      base::fail_input("{}: the gzip data is damaged or truncated: {}", path_.string(), reason);
    }
    if (count == 0) return traits_type::eof();
    setg(buffer_.data(), buffer_.data(), buffer_.data() + count);
    return traits_type::to_int_type(buffer_[0]);
  }

 private:
  fs::path path_;
  gzFile file_;
  std::vector<char> buffer_;
};

class TextReader : public DocumentReader {
 public:
  explicit TextReader(const SourceFile& file) : name_(file.path.string()), buffer_(file.path) {}

  bool next(DocumentPiece& piece) override {
    if (done_) return false;
    fill();
    if (first_ && rest_.starts_with("\xef\xbb\xbf")) rest_.erase(0, 3);
    std::size_t cut = rest_.size();
    if (!done_) {
      const std::size_t newline = rest_.rfind('\n');
      cut = newline != std::string::npos ? newline + 1 : rest_.size() - incomplete_utf8_tail(rest_);
    }
    piece = DocumentPiece{};
    piece.text = rest_.substr(0, cut);
    rest_.erase(0, cut);
    piece.place = name_;
    piece.begins = std::exchange(first_, false);
    piece.ends = done_;
    check_is_text(piece.text, name_);
    return !piece.text.empty();
  }

 private:
  void fill() {
    const std::size_t have = rest_.size();
    const std::size_t want = std::max(kPieceBytes, 2 * have);
    rest_.resize(want);
    const auto got = buffer_.sgetn(rest_.data() + have, static_cast<std::streamsize>(want - have));
    rest_.resize(have + static_cast<std::size_t>(got));
    done_ = buffer_.sgetc() == std::char_traits<char>::eof();
  }

  std::string name_;
  GzipBuffer buffer_;
  std::string rest_;
  bool first_ = true;
  bool done_ = false;
};

/// parse_json with the order of keys kept.
base::OrderedJson parse_ordered(std::string_view line, const std::string& place) {
  (void)base::parse_json(line, place);  // refuses malformed and too deeply nested text with a good message
  return base::OrderedJson::parse(line);
}

class JsonlDocuments : public DocumentReader {
 public:
  JsonlDocuments(const SourceFile& file, std::string text_field)
      : buffer_(file.path),
        stream_(&buffer_),
        reader_(stream_, file.path.string()),
        text_field_(std::move(text_field)) {
    // Errors of the buffer must reach the caller and not become a silent end of the stream.
    stream_.exceptions(std::ios::badbit);
  }

  bool next(DocumentPiece& piece) override {
    std::string_view line;
    if (!reader_.next_line(line)) return false;
    piece = DocumentPiece{};
    piece.place = reader_.place();
    base::OrderedJson row = parse_ordered(line, piece.place);
    GANTRY_CHECK(row.is_object(), "{}: expected an object with '{}' or 'messages', found {}", piece.place, text_field_,
                 row.type_name());
    if (const auto messages = row.find("messages"); messages != row.end() && !row.contains(text_field_)) {
      GANTRY_CHECK(messages->is_array() && !messages->empty(), "{}: 'messages' must be a list that is not empty",
                   piece.place);
      piece.messages = std::move(row);
      return true;
    }
    const auto text = row.find(text_field_);
    GANTRY_CHECK(text != row.end(), "{}: neither '{}' nor 'messages' is there", piece.place, text_field_);
    GANTRY_CHECK(text->is_string(), "{}: '{}' must be a string, found {}", piece.place, text_field_, text->type_name());
    piece.text = text->get<std::string>();
    return true;
  }

 private:
  GzipBuffer buffer_;
  std::istream stream_;
  formats::JsonlReader reader_;
  std::string text_field_;
};

}  // namespace

std::vector<SourceFile> find_sources(const std::vector<std::string>& paths) {
  GANTRY_CHECK(!paths.empty(), "no data given; name at least one text file, JSONL file or folder");
  std::vector<SourceFile> files;
  for (const std::string& name : paths) {
    const fs::path path = name;
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    GANTRY_CHECK(fs::exists(status), "{}: there is no such file or folder", name);
    if (fs::is_directory(status)) {
      const auto found = search_folder(path);
      files.insert(files.end(), found.begin(), found.end());
    } else {
      GANTRY_CHECK(fs::is_regular_file(status), "{}: expected a file or a folder, found another kind", name);
      files.push_back(describe(path, true));
    }
  }
  return files;
}

std::unique_ptr<DocumentReader> open_documents(const SourceFile& file, const std::string& text_field) {
  if (file.jsonl) return std::make_unique<JsonlDocuments>(file, text_field);
  return std::make_unique<TextReader>(file);
}

void check_is_text(std::string_view text, const std::string& place) {
  const std::size_t nul = text.find('\0');
  GANTRY_CHECK(nul == std::string_view::npos,
               "{}: a binary file (NUL at byte {}), expected text in UTF-8; UTF-16 must be converted first", place,
               nul);
  if (is_valid_utf8(text)) return;
  std::size_t bad = 0;
  for (std::size_t at = 0; at < text.size();) {
    const DecodedChar decoded = decode_utf8(text, at);
    bad += decoded.code == kInvalidCodePoint ? 1 : 0;
    at += decoded.length;
  }
  GANTRY_CHECK(bad * 100 <= text.size(), "{}: {} of {} bytes are not UTF-8; this is a binary file or another encoding",
               place, bad, text.size());
}

}  // namespace gantry::text
