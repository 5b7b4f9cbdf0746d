#include "gantry/text/dataset_source.h"

#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include "tests/text/byte_tokenizer.h"
#include "tests/text/text_data.h"

namespace gantry::text {
namespace {

std::string gzip(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::vector<DocumentPiece> read_all(const std::string& path) {
  std::vector<DocumentPiece> pieces;
  const auto reader = open_documents(find_sources({path})[0], "text");
  for (DocumentPiece piece; reader->next(piece);) pieces.push_back(std::move(piece));
  return pieces;
}

TEST(DatasetSource, FoldersAreSearchedInSortedOrder) {
  const TemporaryFolder folder;
  for (const char* name : {"b/z.txt", "b/a.md", "a.jsonl", "c.bin", ".hidden/x.txt", ".dot.txt", "d.txt.gz", "E.TXT"}) {
    folder.write(name, "x");
  }
  std::vector<std::string> found;
  for (const SourceFile& file : find_sources({folder.path().string()})) {
    found.push_back(std::filesystem::relative(file.path, folder.path()).string() + (file.jsonl ? " jsonl" : ""));
    EXPECT_FALSE(file.named);
    EXPECT_EQ(file.bytes, 1u);
  }
  EXPECT_EQ(found, (std::vector<std::string>{"E.TXT", "a.jsonl jsonl", "b/a.md", "b/z.txt", "d.txt.gz"}));
}

TEST(DatasetSource, MissingAndUselessPathsAreNamed) {
  const TemporaryFolder folder;
  folder.write("sub/x.bin", "x");
  const std::string name = folder.path().string();
  EXPECT_EQ(message_of([&] { find_sources({}); }), "no data given; name at least one text file, JSONL file or folder");
  EXPECT_EQ(message_of([&] { find_sources({name + "/nope"}); }), name + "/nope: there is no such file or folder");
  EXPECT_NE(message_of([&] { find_sources({name}); }).find(name + ": no text files in this folder"), std::string::npos);
  EXPECT_EQ(message_of([&] { find_sources({"/dev/null"}); }),
            "/dev/null: expected a file or a folder, found another kind");
}

TEST(DatasetSource, AnUnreadableFolderIsNamed) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read every folder";
  const TemporaryFolder folder;
  folder.write("locked/x.txt", "x");
  std::filesystem::permissions(folder / "locked", std::filesystem::perms::none);
  const std::string message = message_of([&] { find_sources({folder.path().string()}); });
  std::filesystem::permissions(folder / "locked", std::filesystem::perms::owner_all);
  EXPECT_NE(message.find("cannot list this folder"), std::string::npos) << message;
}

TEST(DatasetSource, ATextFileIsOneDocumentWithoutItsByteOrderMark) {
  const TemporaryFolder folder;
  const auto pieces = read_all(folder.write("x.txt", "\xef\xbb\xbfone\ntwo"));
  ASSERT_EQ(pieces.size(), 1u);
  EXPECT_EQ(pieces[0].text, "one\ntwo");
  EXPECT_TRUE(pieces[0].begins && pieces[0].ends);
}

TEST(DatasetSource, ALongTextComesInPiecesThatJoinToIt) {
  const TemporaryFolder folder;
  std::string text;
  while (text.size() < 2 * kPieceBytes + 1000) text += "line " + std::to_string(text.size()) + " é\n";
  const auto pieces = read_all(folder.write("x.txt", text));
  ASSERT_EQ(pieces.size(), 3u);
  std::string joined;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    joined += pieces[i].text;
    EXPECT_EQ(pieces[i].begins, i == 0);
    EXPECT_EQ(pieces[i].ends, i == 2);
    EXPECT_EQ(pieces[i].text.back(), '\n');
  }
  EXPECT_TRUE(joined == text);
}

TEST(DatasetSource, GzipIsReadAndDamageNoticed) {
  const TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 20000; ++i) text += "line " + std::to_string(i * 7919 % 10007) + "\n";
  const std::string packed = gzip(text);
  const auto pieces = read_all(folder.write("x.txt.gz", packed));
  ASSERT_EQ(pieces.size(), 1u);
  EXPECT_TRUE(pieces[0].text == text);
  const auto rows = read_all(folder.write("x.jsonl.gz", gzip("{\"text\": \"a\"}\n{\"text\": \"b\"}")));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1].text, "b");
  const std::string cut = folder.write("cut.txt.gz", packed.substr(0, packed.size() / 2));
  EXPECT_NE(message_of([&] { read_all(cut); }).find(cut + ": the gzip data is damaged or truncated"),
            std::string::npos);
  std::string flipped = packed;
  flipped[packed.size() / 2] = static_cast<char>(flipped[packed.size() / 2] ^ 0x55);
  const std::string damaged = folder.write("flip.txt.gz", flipped);
  EXPECT_NE(message_of([&] { read_all(damaged); }), "");
  const std::string cut_rows = folder.write("cut.jsonl.gz", gzip("{\"text\": \"aaaaaaaaaa\"}\n").substr(0, 25));
  EXPECT_NE(message_of([&] { read_all(cut_rows); }).find("the gzip data is damaged or truncated"), std::string::npos);
}

TEST(DatasetSource, BinaryFilesAreRefused) {
  const TemporaryFolder folder;
  const std::string nul = folder.write("nul.txt", std::string("ab\0c", 4));
  EXPECT_EQ(message_of([&] { read_all(nul); }),
            nul + ": a binary file (NUL at byte 2), expected text in UTF-8; UTF-16 must be converted first");
  const std::string latin = folder.write("latin.txt", "caf\xe9 \xfc");
  EXPECT_EQ(message_of([&] { read_all(latin); }),
            latin + ": 2 of 6 bytes are not UTF-8; this is a binary file or another encoding");
  EXPECT_EQ(read_all(folder.write("few.txt", std::string(1000, 'x') + "\xe9")).size(), 1u);
}

TEST(DatasetSource, JsonLinesGiveTextsAndConversations) {
  const TemporaryFolder folder;
  const auto rows = read_all(folder.write("x.jsonl",
                                          "{\"text\": \"a\\nb\", \"id\": 1}\n\n{\"messages\": [{\"role\": \"user\", "
                                          "\"content\": \"hi\"}], \"tools\": [{\"z\": 1, \"a\": 2}]}\r\n"));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].text, "a\nb");
  EXPECT_TRUE(rows[0].messages.is_null());
  EXPECT_EQ(rows[1].messages["tools"].dump(), R"([{"z":1,"a":2}])");
}

TEST(DatasetSource, BadJsonLinesAreNamedByLine) {
  const TemporaryFolder folder;
  const auto message = [&](const std::string& line) {
    const std::string path = folder.write("x.jsonl", "{\"text\": \"a\"}\n" + line + "\n");
    return message_of([&] { read_all(path); }).substr(path.size());
  };
  EXPECT_EQ(message("{\"text\": "),
            ":2: not valid JSON: parse error at line 1, column 10: syntax error while parsing value - unexpected end "
            "of input; expected '[', '{', or a literal");
  EXPECT_EQ(message("[1]"), ":2: expected an object with 'text' or 'messages', found array");
  EXPECT_EQ(message("{\"txt\": \"a\"}"), ":2: neither 'text' nor 'messages' is there");
  EXPECT_EQ(message("{\"text\": 5}"), ":2: 'text' must be a string, found number");
  EXPECT_EQ(message("{\"messages\": []}"), ":2: 'messages' must be a list that is not empty");
  EXPECT_EQ(message(std::string(300, '[') + std::string(300, ']')), ":2: JSON nested deeper than 256 levels");
}

}  // namespace
}  // namespace gantry::text
