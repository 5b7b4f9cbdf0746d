#pragma once
// From files to documents: plain text (a file is a document), JSON Lines (a line is a document with `text` or
// `messages`), either of them compressed with gzip (.gz).
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gantry/base/json.h"

namespace gantry::text {

struct SourceFile {
  std::filesystem::path path;
  bool jsonl = false;  // .jsonl, .ndjson; also before .gz
  bool named = false;  // given itself, not found in a folder
  std::uint64_t bytes = 0;
  std::int64_t modified_ns = 0;
};

/// The files behind `paths`, in the order given; a folder gives its text files (.txt, .md, .text, .rst, .jsonl,
/// .ndjson, also with .gz), sub-folders included, sorted by path. Throws InputError for a missing path, an unreadable
/// folder and a folder without such files.
std::vector<SourceFile> find_sources(const std::vector<std::string>& paths);

/// One document, or a part of a long one.
struct DocumentPiece {
  std::string text;
  base::OrderedJson messages;  // null, or a conversation instead of text
  bool begins = true;
  bool ends = true;
  std::string place;  // "file" or "file:line", for messages
};

/// Reads a file's documents in order.
class DocumentReader {
 public:
  virtual ~DocumentReader() = default;
  /// The next piece; false at the end. Throws InputError naming the file (and line) for binary files, malformed JSON
  /// and damaged gzip data.
  virtual bool next(DocumentPiece& piece) = 0;
};

/// `text_field`: the member of a JSON line that holds the text; `messages` holds a conversation.
std::unique_ptr<DocumentReader> open_documents(const SourceFile& file, const std::string& text_field);

/// Throws InputError when `text` is no text: a NUL byte, or more than 1 % of its bytes are not UTF-8.
void check_is_text(std::string_view text, const std::string& place);

/// A long text is handed out in pieces of about this many bytes, cut after a newline.
constexpr std::size_t kPieceBytes = std::size_t{16} << 20;

}  // namespace gantry::text
