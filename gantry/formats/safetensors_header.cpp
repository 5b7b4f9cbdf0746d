#include <optional>
#include <utility>

#include "gantry/base/check.h"
#include "gantry/base/json.h"
#include "gantry/formats/safetensors_internal.h"

namespace gantry::formats::internal {
namespace {

using base::fail_input;

constexpr std::size_t kMaxDimensions = 64;

/// Receives the events of nlohmann's parser. The nesting is fixed: the document, an entry, and the array of a field.
class HeaderHandler : public nlohmann::json_sax<base::Json> {
 public:
  explicit HeaderHandler(const std::string& source) : source_(source) {}

  Header take() { return std::move(header_); }

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override {
    return unexpected(std::to_string(value) + ", which is negative,");
  }
  bool number_float(number_float_t, const string_t& text) override { return unexpected(text); }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (level_ != Level::kArray) return unexpected(std::to_string(value));
    if (field_ == "shape") {
      GANTRY_CHECK(value <= INT64_MAX, "{}: tensor '{}': shape has a size of {}, more than 2^63 - 1", source_,
                   tensor_.info.name, value);
      GANTRY_CHECK(tensor_.info.shape.size() < kMaxDimensions, "{}: tensor '{}': more than {} dimensions", source_,
                   tensor_.info.name, kMaxDimensions);
      tensor_.info.shape.push_back(static_cast<std::int64_t>(value));
    } else {
      GANTRY_CHECK(offsets_seen_ < 2, "{}: tensor '{}': data_offsets must hold two numbers", source_,
                   tensor_.info.name);
      (offsets_seen_ == 0 ? tensor_.begin : tensor_.end) = value;
      ++offsets_seen_;
    }
    return true;
  }

  bool string(string_t& value) override {
    if (level_ == Level::kMetadata) {
      const bool added = header_.metadata.emplace(field_, std::move(value)).second;
      GANTRY_CHECK(added, "{}: __metadata__ holds '{}' twice", source_, field_);
      return true;
    }
    if (level_ != Level::kTensor || field_ != "dtype") return unexpected("a string");
    const auto dtype = parse_dtype(value);
    GANTRY_CHECK(dtype.has_value(), "{}: tensor '{}': unknown element type '{}'", source_, tensor_.info.name, value);
    tensor_.info.dtype = *dtype;
    return true;
  }

  bool start_object(std::size_t) override {
    if (level_ == Level::kStart) {
      level_ = Level::kDocument;
    } else if (level_ == Level::kDocument && field_ == "__metadata__") {
      GANTRY_CHECK(!std::exchange(metadata_seen_, true), "{}: header holds __metadata__ twice", source_);
      level_ = Level::kMetadata;
    } else if (level_ == Level::kDocument) {
      level_ = Level::kTensor;
      tensor_ = HeaderTensor{};
      tensor_.info.name = field_;
      dtype_seen_ = shape_seen_ = false;
      offsets_seen_ = -1;
    } else {
      return unexpected("an object");
    }
    return true;
  }

  bool key(string_t& name) override {
    field_ = std::move(name);
    if (level_ != Level::kTensor) return true;
    bool repeated = false;
    if (field_ == "dtype") {
      repeated = std::exchange(dtype_seen_, true);
    } else if (field_ == "shape") {
      repeated = std::exchange(shape_seen_, true);
    } else if (field_ == "data_offsets") {
      repeated = std::exchange(offsets_seen_, 0) != -1;
    } else {
      fail_input("{}: tensor '{}': unknown field '{}'", source_, tensor_.info.name, field_);
    }
    GANTRY_CHECK(!repeated, "{}: tensor '{}': field '{}' appears twice", source_, tensor_.info.name, field_);
    return true;
  }

  bool end_object() override {
    if (level_ == Level::kTensor) {
      GANTRY_CHECK(dtype_seen_ && shape_seen_ && offsets_seen_ == 2,
                   "{}: tensor '{}': needs dtype, shape and two data_offsets", source_, tensor_.info.name);
      header_.tensors.push_back(std::move(tensor_));
    }
    level_ = level_ == Level::kDocument ? Level::kEnd : Level::kDocument;
    return true;
  }

  bool start_array(std::size_t) override {
    if (level_ != Level::kTensor || field_ == "dtype") return unexpected("an array");
    level_ = Level::kArray;
    return true;
  }

  bool end_array() override {
    level_ = Level::kTensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    std::string_view what = error.what();
    if (const auto bracket = what.find("] "); bracket != what.npos) what.remove_prefix(bracket + 2);
    fail_input("{}: header is not valid JSON at byte {}: {}", source_, position, what);
  }

 private:
  enum class Level { kStart, kDocument, kMetadata, kTensor, kArray, kEnd };

  bool unexpected(const std::string& found) const {
    switch (level_) {
      case Level::kMetadata: fail_input("{}: __metadata__ '{}' must be a string, found {}", source_, field_, found);
      case Level::kTensor:
      case Level::kArray:
        fail_input("{}: tensor '{}': field '{}' cannot hold {}", source_, tensor_.info.name, field_, found);
      case Level::kDocument: fail_input("{}: header entry '{}' must be an object, found {}", source_, field_, found);
      default: fail_input("{}: header must be a JSON object, found {}", source_, found);
    }
  }

  const std::string& source_;
  Header header_;
  HeaderTensor tensor_;
  std::string field_;
  Level level_ = Level::kStart;
  bool dtype_seen_ = false;
  bool shape_seen_ = false;
  bool metadata_seen_ = false;
  int offsets_seen_ = -1;  // -1: no such field yet
};

}  // namespace

Header parse_safetensors_header(std::string_view json, const std::string& source) {
  HeaderHandler handler(source);
  base::Json::sax_parse(json, &handler);
  return handler.take();
}

}  // namespace gantry::formats::internal
