#pragma once
// A measurement server as a child process: it warms up once, prints {"ready": true}, and answers each line "run" with
// one JSON line of results. The baselines (bench/baselines/server.py) and Gantry's own measurements speak the same
// protocol, so that the benchmark can take them in turns and each has a process, and a memory peak, of its own.
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/base/json.h"

namespace gantry::cli {

/// A process of its own group between two pipes. It ends with this object, and with this process at the latest: what
/// hears SIGTERM and the end of its input has a moment to leave, then it is killed; after Ctrl-C at once.
class ChildProcess {
 public:
  /// Error naming `name` when no process can be made; a command that does not exist is one that ends at once.
  ChildProcess(const std::string& name, const std::vector<std::string>& command);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  /// False when the process reads no more.
  bool write(std::string_view text) const;
  /// What the process printed next, at least a byte; empty at its end. base::Interrupted after SIGINT, within a tenth
  /// of a second.
  std::string read() const;

 private:
  int process_ = -1;
  int to_child_ = -1;
  int from_child_ = -1;
};

class BenchServer {
 public:
  /// Starts `command` and waits for its first line. A server that can't measure is not an error: see missing().
  /// base::Interrupted after SIGINT, here and in run(); the process is gone then.
  BenchServer(std::string name, const std::vector<std::string>& command);

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
  ChildProcess process_;
  std::string buffer_;
};

/// The child's side for Gantry's own measurements: prints ready, then a line per "run" until the input ends.
void serve_measurements(const base::OrderedJson& settings, const std::function<base::OrderedJson()>& round);

}  // namespace gantry::cli
