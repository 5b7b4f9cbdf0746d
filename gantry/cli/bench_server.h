#pragma once
// A measurement server as a child process: it warms up once, prints {"ready": true}, and answers each line "run" with
// one JSON line of results. The baselines (bench/baselines/server.py) and Gantry's own measurements speak the same
// protocol, so that the benchmark can take them in turns and each has a process, and a memory peak, of its own.
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "gantry/base/json.h"

namespace gantry::cli {

class BenchServer {
 public:
  /// Starts `command` and waits for its first line. A server that can't measure is not an error: see missing().
  BenchServer(std::string name, const std::vector<std::string>& command);
  ~BenchServer();
  BenchServer(const BenchServer&) = delete;
  BenchServer& operator=(const BenchServer&) = delete;

  /// Why nothing can be measured here (a package is not installed, loading failed); empty when ready.
  const std::string& missing() const { return missing_; }
  /// The settings that the server printed with "ready".
  const base::Json& settings() const { return settings_; }
  /// One round. Error when the server dies or answers nonsense.
  base::Json run();

 private:
  std::optional<base::Json> read_line();

  std::string name_;
  std::string missing_;
  base::Json settings_;
  int process_ = -1;
  int to_child_ = -1;
  int from_child_ = -1;
  std::string buffer_;
};

/// The child's side for Gantry's own measurements: prints ready, then a line per "run" until the input ends.
void serve_measurements(const base::OrderedJson& settings, const std::function<base::OrderedJson()>& round);

}  // namespace gantry::cli
