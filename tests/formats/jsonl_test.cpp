#include "gantry/formats/jsonl.h"

#include <gtest/gtest.h>

#include <sstream>

#include "tests/formats/test_files.h"

namespace gantry::formats {
namespace {

using testing::input_error;
using testing::read_raw;
using testing::TemporaryFolder;
using testing::write_raw;

std::vector<base::Json> read_all(const std::string& text) {
  std::istringstream stream(text);
  JsonlReader reader(stream, "t.jsonl");
  std::vector<base::Json> result;
  for (base::Json value; reader.next(value);) result.push_back(value);
  return result;
}

TEST(JsonlReader, AcceptsEveryLineEndingAndBlankLines) {
  const std::vector<base::Json> wanted{1, "two", {{"k", 3}}};
  const std::string good = "1\n\"two\"\n{\"k\":3}\n";
  EXPECT_EQ(read_all(good), wanted);
  EXPECT_EQ(read_all("1\n\"two\"\n{\"k\":3}"), wanted) << "no last newline";
  EXPECT_EQ(read_all("1\r\n\"two\"\r\n{\"k\":3}\r\n"), wanted) << "CRLF";
  EXPECT_EQ(read_all("\n \n1\n\t\n\"two\"\r\n\r\n{\"k\":3}\n\n"), wanted) << "blank lines";
  EXPECT_EQ(read_all("\xef\xbb\xbf" + good), wanted) << "byte-order mark";
  EXPECT_TRUE(read_all("").empty());
  EXPECT_TRUE(read_all("\n\n").empty());
}

TEST(JsonlReader, CountsLinesAndBytes) {
  std::istringstream stream("1\n\n22\r\n3");
  JsonlReader reader(stream, "t.jsonl");
  std::string_view line;
  ASSERT_TRUE(reader.next_line(line));
  EXPECT_EQ(reader.offset(), 2u);
  ASSERT_TRUE(reader.next_line(line));
  EXPECT_EQ(line, "22");
  EXPECT_EQ(reader.line(), 3u);
  EXPECT_EQ(reader.offset(), 7u);
  ASSERT_TRUE(reader.next_line(line));
  EXPECT_EQ(reader.place(), "t.jsonl:4");
  EXPECT_FALSE(reader.next_line(line));
  EXPECT_EQ(reader.offset(), 8u);
}

TEST(JsonlReader, ErrorsNameFileAndLine) {
  EXPECT_MENTIONS(input_error([] { read_all("1\n\n{bad}\n"); }), "t.jsonl:3: not valid JSON");
  EXPECT_MENTIONS(input_error([] { read_all("1 2\n"); }), "t.jsonl:1: not valid JSON");
  EXPECT_MENTIONS(input_error([] { read_all("1\n\"\xff\"\n"); }), "t.jsonl:2: not valid JSON");
  EXPECT_MENTIONS(input_error([] { read_all(std::string(2000, '[')); }), "t.jsonl:1:");
  EXPECT_MENTIONS(input_error([] { read_all("{\"a\":1\n,\"b\":2}\n"); }), "t.jsonl:1:");
}

TEST(JsonlReader, LimitsTheLengthOfALine) {
  std::istringstream stream("12345678\n123456789\n");
  JsonlReader reader(stream, "t.jsonl", 8);
  base::Json value;
  EXPECT_TRUE(reader.next(value));
  EXPECT_MENTIONS(input_error([&] { reader.next(value); }), "t.jsonl:2: line longer than the 8 bytes");
}

TEST(JsonlReader, NamesMissingFilesAndFolders) {
  const TemporaryFolder folder;
  EXPECT_MENTIONS(input_error([&] { JsonlReader reader(folder / "none.jsonl"); }), "none.jsonl: cannot open: No such");
  EXPECT_MENTIONS(input_error([&] { JsonlReader reader(folder.path()); }), "found a folder");
}

TEST(JsonlWriter, WritesLinesThatReadBack) {
  const TemporaryFolder folder;
  {
    JsonlWriter writer(folder / "x.jsonl");
    writer.write(base::Json{{"text", "two\nlines"}});
    EXPECT_EQ(read_raw(folder / "x.jsonl"), "{\"text\":\"two\\nlines\"}\n") << "on disk before the writer closes";
    writer.write(base::OrderedJson{{"z", 1}, {"a", 2}});
    writer.write_line("[1,2]");
    writer.write(base::Json("half a character: \xc3"));
    writer.sync();
  }
  JsonlReader reader(folder / "x.jsonl");
  base::Json value;
  ASSERT_TRUE(reader.next(value));
  EXPECT_EQ(value["text"], "two\nlines");
  std::string_view line;
  ASSERT_TRUE(reader.next_line(line));
  EXPECT_EQ(line, "{\"z\":1,\"a\":2}") << "keeps the order of keys";
  ASSERT_TRUE(reader.next(value));
  ASSERT_TRUE(reader.next(value));
  EXPECT_EQ(value, "half a character: \xef\xbf\xbd");
  EXPECT_FALSE(reader.next(value));
}

TEST(JsonlWriter, RefusesALineWithANewline) {
  const TemporaryFolder folder;
  JsonlWriter writer(folder / "x.jsonl");
  EXPECT_MENTIONS(input_error([&] { writer.write_line("1\n2"); }), "cannot contain a newline");
}

TEST(JsonlWriter, ReplacesOrContinuesAFile) {
  const TemporaryFolder folder;
  write_raw(folder / "x.jsonl", "1\n");
  { JsonlWriter(folder / "x.jsonl", JsonlMode::kAppend).write(base::Json(2)); }
  EXPECT_EQ(read_raw(folder / "x.jsonl"), "1\n2\n");
  { JsonlWriter(folder / "x.jsonl").write(base::Json(3)); }
  EXPECT_EQ(read_raw(folder / "x.jsonl"), "3\n");
}

TEST(JsonlWriter, RemovesAnUnfinishedLastLineWhenContinuing) {
  const TemporaryFolder folder;
  const auto continued = [&](std::string_view before) {
    write_raw(folder / "x.jsonl", before);
    JsonlWriter(folder / "x.jsonl", JsonlMode::kAppend).write(base::Json(2));
    return read_raw(folder / "x.jsonl");
  };
  EXPECT_EQ(continued("{\"a\":1}\n{\"a\":"), "{\"a\":1}\n2\n");
  EXPECT_EQ(continued("{\"a\":"), "2\n");
  EXPECT_EQ(continued("{\"a\":1}"), "{\"a\":1}\n2\n") << "whole, only its ending is missing";
  EXPECT_EQ(continued(""), "2\n");
}

}  // namespace
}  // namespace gantry::formats
