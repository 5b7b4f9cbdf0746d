// The ZIP side of .npz: central directory (with ZIP64), stored and deflated members; stored writing.
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "gantry/formats/npy_internal.h"

namespace gantry::formats {
namespace {

constexpr std::uint32_t kLocalHeader = 0x04034b50;
constexpr std::uint32_t kCentralHeader = 0x02014b50;
constexpr std::uint32_t kEndRecord = 0x06054b50;
constexpr std::uint32_t kEndRecord64 = 0x06064b50;
constexpr std::uint32_t kEndLocator64 = 0x07064b50;
constexpr std::uint16_t kStored = 0;
constexpr std::uint16_t kDeflated = 8;
constexpr std::uint16_t kEncrypted = 1;
constexpr std::uint16_t kZip64Extra = 1;
constexpr std::uint64_t kEndBytes = 22;
constexpr std::uint64_t kCentralBytes = 46;
constexpr std::uint64_t kLocalBytes = 30;
constexpr std::uint64_t kMaxCommentBytes = 65535;
/// Deflate cannot shrink data further than this.
constexpr std::uint64_t kMaxDeflateRatio = 1032;

/// Little-endian fields at fixed places; every access is checked against the image.
class Fields {
 public:
  Fields(std::span<const std::byte> bytes, const std::string& source) : bytes_(bytes), source_(source) {}

  template <class T>
  T get(std::uint64_t at) const {
    T value;
    std::memcpy(&value, slice(at, sizeof(T)).data(), sizeof(T));
    return value;
  }

  std::span<const std::byte> slice(std::uint64_t at, std::uint64_t length) const {
    GANTRY_CHECK(at <= bytes_.size() && length <= bytes_.size() - at,
                 "{}: truncated or damaged ZIP: {} bytes at {} are outside the file's {}", source_, length, at,
                 bytes_.size());
    return bytes_.subspan(at, length);
  }

  std::string text(std::uint64_t at, std::uint64_t length) const {
    const auto bytes = slice(at, length);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& source_;
};

struct Directory {
  std::uint64_t entries = 0;
  std::uint64_t offset = 0;
};

/// The end record is the last thing in the file, but for a comment of unknown length.
Directory find_directory(std::span<const std::byte> image, const Fields& fields, const std::string& source) {
  GANTRY_CHECK(image.size() >= kEndBytes, "{}: {} bytes is too short for a ZIP (.npz) file", source, image.size());
  const std::uint64_t last = image.size() - kEndBytes;
  const std::uint64_t first = last > kMaxCommentBytes ? last - kMaxCommentBytes : 0;
  std::uint64_t end = last;
  while (fields.get<std::uint32_t>(end) != kEndRecord) {
    GANTRY_CHECK(end > first, "{}: no ZIP directory found: not a .npz file, or truncated", source);
    --end;
  }
  Directory directory{fields.get<std::uint16_t>(end + 10), fields.get<std::uint32_t>(end + 16)};
  constexpr std::uint64_t kLocatorBytes = 20;
  if (end >= kLocatorBytes && fields.get<std::uint32_t>(end - kLocatorBytes) == kEndLocator64) {
    const auto record = fields.get<std::uint64_t>(end - kLocatorBytes + 8);
    GANTRY_CHECK(fields.get<std::uint32_t>(record) == kEndRecord64, "{}: damaged ZIP64 directory", source);
    directory = {fields.get<std::uint64_t>(record + 32), fields.get<std::uint64_t>(record + 48)};
  }
  GANTRY_CHECK(directory.entries <= image.size() / kCentralBytes, "{}: ZIP claims {} members in {} bytes", source,
               directory.entries, image.size());
  return directory;
}

/// Fields that hold all ones are continued, in this order, in the ZIP64 extra field.
void apply_zip64(const Fields& fields, std::uint64_t extra, std::uint64_t extra_bytes,
                 std::initializer_list<std::uint64_t*> values) {
  const std::uint64_t end = extra + extra_bytes;
  while (end - extra >= 4) {
    const auto id = fields.get<std::uint16_t>(extra);
    const std::uint64_t length = fields.get<std::uint16_t>(extra + 2);
    std::uint64_t at = extra + 4;
    if (length > end - at) return;
    extra = at + length;
    if (id != kZip64Extra) continue;
    for (std::uint64_t* value : values) {
      if (*value != 0xffffffff || extra - at < 8) continue;
      *value = fields.get<std::uint64_t>(at);
      at += 8;
    }
  }
}

template <class T>
void append_field(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

std::uint32_t crc_of(std::uint32_t crc, std::span<const std::byte> bytes) {
  if (bytes.empty()) return crc;  // zlib takes a null pointer as "start afresh"
  return static_cast<std::uint32_t>(::crc32_z(crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

/// The part that local and central headers have in common, from "version needed" to the extra field's length.
std::string common_fields(std::uint32_t crc, std::uint64_t bytes, std::size_t name_bytes) {
  constexpr std::uint16_t kVersion = 20;
  constexpr std::uint16_t kUtf8Name = 1 << 11;
  constexpr std::uint16_t kMidnight = 0;
  constexpr std::uint16_t kFirstDay = (1 << 5) | 1;  // 1980-01-01: equal arrays give equal files
  std::string out;
  for (const std::uint16_t field : {kVersion, kUtf8Name, kStored, kMidnight, kFirstDay}) append_field(out, field);
  append_field(out, crc);
  append_field(out, static_cast<std::uint32_t>(bytes));
  append_field(out, static_cast<std::uint32_t>(bytes));
  append_field(out, static_cast<std::uint16_t>(name_bytes));
  append_field(out, std::uint16_t{0});
  return out;
}

}  // namespace

std::vector<std::byte> internal::inflate_exactly(std::span<const std::byte> packed, std::uint64_t bytes,
                                                 const std::string& source) {
  constexpr std::uint64_t kStep = std::uint64_t{1} << 24;
  z_stream stream{};
  if (::inflateInit2(&stream, -MAX_WBITS) != Z_OK) base::fail("{}: zlib cannot start", source);
  struct Guard {
    z_stream* stream;
    ~Guard() { ::inflateEnd(stream); }
  } const guard{&stream};
  // Memory grows with what really comes out, whatever the directory claims; one spare byte shows an overlong stream.
  std::vector<std::byte> out;
  std::uint64_t used = 0;
  int status = Z_OK;
  while (status == Z_OK) {
    if (stream.avail_in == 0) {
      const auto piece = packed.first(std::min<std::size_t>(packed.size(), kStep));
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(piece.data()));
      stream.avail_in = static_cast<uInt>(piece.size());
      packed = packed.subspan(piece.size());
    }
    if (used == out.size()) out.resize(std::min(bytes + 1, std::max(kStep, 2 * used)));
    const std::uint64_t room = std::min<std::uint64_t>(out.size() - used, kStep);
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + used);
    stream.avail_out = static_cast<uInt>(room);
    status = ::inflate(&stream, Z_NO_FLUSH);
    used += room - stream.avail_out;
    GANTRY_CHECK(used <= bytes, "{}: damaged ZIP: more than the {} bytes its directory states", source, bytes);
  }
  GANTRY_CHECK(status == Z_STREAM_END && used == bytes, "{}: damaged ZIP: {} of {} bytes could be unpacked", source,
               used, bytes);
  out.resize(bytes);
  return out;
}

NpzFile NpzFile::open(const std::filesystem::path& path) {
  NpzFile result;
  result.file_.emplace(path);
  result.image_ = result.file_->bytes();
  result.source_ = path.string();
  result.parse_directory();
  return result;
}

NpzFile NpzFile::parse(std::span<const std::byte> image, std::string source) {
  NpzFile result;
  result.image_ = image;
  result.source_ = std::move(source);
  result.parse_directory();
  return result;
}

void NpzFile::parse_directory() {
  const Fields fields(image_, source_);
  const Directory directory = find_directory(image_, fields, source_);
  std::uint64_t at = directory.offset;
  for (std::uint64_t i = 0; i < directory.entries; ++i) {
    GANTRY_CHECK(fields.get<std::uint32_t>(at) == kCentralHeader, "{}: damaged ZIP directory at byte {}", source_, at);
    Member member;
    member.flags = fields.get<std::uint16_t>(at + 8);
    member.method = fields.get<std::uint16_t>(at + 10);
    member.crc = fields.get<std::uint32_t>(at + 16);
    member.packed_bytes = fields.get<std::uint32_t>(at + 20);
    member.bytes = fields.get<std::uint32_t>(at + 24);
    const std::uint64_t name_bytes = fields.get<std::uint16_t>(at + 28);
    const std::uint64_t extra_bytes = fields.get<std::uint16_t>(at + 30);
    const std::uint64_t comment_bytes = fields.get<std::uint16_t>(at + 32);
    member.header_offset = fields.get<std::uint32_t>(at + 42);
    std::string name = fields.text(at + kCentralBytes, name_bytes);
    apply_zip64(fields, at + kCentralBytes + name_bytes, extra_bytes,
                {&member.bytes, &member.packed_bytes, &member.header_offset});
    at += kCentralBytes + name_bytes + extra_bytes + comment_bytes;
    if (!name.ends_with(".npy")) continue;
    name.resize(name.size() - 4);
    const bool added = members_.emplace(name, member).second;
    GANTRY_CHECK(added, "{}: array '{}' appears twice", source_, name);
  }
}

std::vector<std::string> NpzFile::names() const {
  std::vector<std::string> result;
  for (const auto& [name, member] : members_) result.push_back(name);
  return result;
}

std::span<const std::byte> NpzFile::packed(const std::string& name, const Member& member) const {
  const Fields fields(image_, source_);
  GANTRY_CHECK((member.flags & kEncrypted) == 0, "{}: array '{}' is encrypted, which is not supported", source_, name);
  GANTRY_CHECK(fields.get<std::uint32_t>(member.header_offset) == kLocalHeader,
               "{}: damaged ZIP: no member at byte {} for array '{}'", source_, member.header_offset, name);
  const std::uint64_t name_bytes = fields.get<std::uint16_t>(member.header_offset + 26);
  const std::uint64_t extra_bytes = fields.get<std::uint16_t>(member.header_offset + 28);
  return fields.slice(member.header_offset + kLocalBytes + name_bytes + extra_bytes, member.packed_bytes);
}

NpyArray NpzFile::read(std::string_view name, std::uint64_t max_bytes) const {
  const auto found = members_.find(name);
  GANTRY_CHECK(found != members_.end(), "{}: array '{}' is missing", source_, name);
  const Member& member = found->second;
  const std::string source = fmt::format("{}[{}]", source_, name);
  GANTRY_CHECK(member.bytes <= max_bytes, "{}: {} bytes, more than the {} accepted here", source, member.bytes,
               max_bytes);
  const auto bytes = packed(found->first, member);
  if (member.method == kStored) {
    GANTRY_CHECK(member.bytes == member.packed_bytes, "{}: damaged ZIP: stored sizes {} and {} differ", source,
                 member.bytes, member.packed_bytes);
    GANTRY_CHECK(crc_of(0, bytes) == member.crc, "{}: damaged: checksum differs", source);
    return parse_npy(bytes, source);
  }
  GANTRY_CHECK(member.method == kDeflated, "{}: ZIP method {} is not supported; save with numpy.savez_compressed",
               source, member.method);
  GANTRY_CHECK(member.bytes / kMaxDeflateRatio <= member.packed_bytes, "{}: damaged ZIP: {} bytes cannot unpack to {}",
               source, member.packed_bytes, member.bytes);
  const auto unpacked = internal::inflate_exactly(bytes, member.bytes, source);
  GANTRY_CHECK(crc_of(0, unpacked) == member.crc, "{}: damaged: checksum differs", source);
  return parse_npy(unpacked, source);
}

void write_npz(const std::filesystem::path& path, const std::vector<NpyToWrite>& arrays) {
  const std::string source = path.string();
  std::set<std::string_view> names;
  std::vector<std::string> headers;
  std::uint64_t total = 0;
  GANTRY_CHECK(arrays.size() < 65535, "{}: {} arrays, more than a .npz can hold", source, arrays.size());
  for (const NpyToWrite& array : arrays) {
    GANTRY_CHECK(names.insert(array.name).second, "{}: array '{}' is given twice", source, array.name);
    GANTRY_CHECK(array.name.size() < 60000, "{}: an array's name is {} bytes long", source, array.name.size());
    headers.push_back(internal::make_npy_header(array, source));
    total += 2 * (kCentralBytes + array.name.size()) + headers.back().size() + array.data.size();
    GANTRY_CHECK(total < 0xffffffff, "{}: more than 4 GiB of arrays; write safetensors instead", source);
  }
  base::AtomicFile file(path);
  std::string directory;
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    const std::string name = arrays[i].name + ".npy";
    const std::uint32_t crc = crc_of(crc_of(0, std::as_bytes(std::span(headers[i]))), arrays[i].data);
    const std::string common = common_fields(crc, headers[i].size() + arrays[i].data.size(), name.size());
    append_field(directory, kCentralHeader);
    append_field(directory, std::uint16_t{20});
    directory += common;
    directory.append(10, '\0');  // comment, disk, attributes
    append_field(directory, static_cast<std::uint32_t>(file.size()));
    directory += name;
    std::string local;
    append_field(local, kLocalHeader);
    file.write(local + common + name + headers[i]);
    file.write(arrays[i].data);
  }
  std::string end;
  append_field(end, kEndRecord);
  append_field(end, std::uint32_t{0});
  append_field(end, static_cast<std::uint16_t>(arrays.size()));
  append_field(end, static_cast<std::uint16_t>(arrays.size()));
  append_field(end, static_cast<std::uint32_t>(directory.size()));
  append_field(end, static_cast<std::uint32_t>(file.size()));
  append_field(end, std::uint16_t{0});
  file.write(directory + end);
  file.commit();
}

}  // namespace gantry::formats
