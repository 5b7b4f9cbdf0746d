#include "gantry/train/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "gantry/base/file.h"

namespace gantry::train {
namespace {

// Lines of completed steps up to and including `step`; a broken last line goes too.
std::string kept_lines(const std::filesystem::path& file, std::int64_t step) {
  std::ifstream in(file);
  std::string kept;
  for (std::string line; std::getline(in, line);) {
    const auto json = base::Json::parse(line, nullptr, false);
    if (json.is_discarded() || !json.is_object()) continue;
    if (json.contains("step") && json["step"].is_number_integer() && json["step"].get<std::int64_t>() > step) continue;
    kept += line + "\n";
  }
  return kept;
}

}  // namespace

MetricsWriter::MetricsWriter(std::filesystem::path file, std::int64_t keep_before_step) : file_(std::move(file)) {
  if (!std::filesystem::exists(file_)) return;
  if (keep_before_step >= 0) base::write_file_atomically(file_, kept_lines(file_, keep_before_step));
}

void MetricsWriter::write(const base::OrderedJson& record) {
  const std::string line = record.dump() + "\n";
  const int descriptor = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor < 0) base::fail("{}: cannot append: {}", file_.string(), std::strerror(errno));
  const ssize_t written = ::write(descriptor, line.data(), line.size());
  const int error = errno;
  ::close(descriptor);
  if (written != static_cast<ssize_t>(line.size())) {
    base::fail("{}: cannot append a record: {}", file_.string(),
               written < 0 ? std::strerror(error) : "no space left on the disk");
  }
}

}  // namespace gantry::train
