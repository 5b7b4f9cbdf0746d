#include "gantry/cli/bench_server.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <iostream>

namespace gantry::cli {

BenchServer::BenchServer(std::string name, const std::vector<std::string>& command) : name_(std::move(name)) {
  std::signal(SIGPIPE, SIG_IGN);
  int input[2], output[2];
  if (::pipe2(input, O_CLOEXEC) != 0 || ::pipe2(output, O_CLOEXEC) != 0) base::fail("{}: cannot make a pipe", name_);
  process_ = ::fork();
  if (process_ < 0) base::fail("{}: cannot start a process", name_);
  if (process_ == 0) {
    ::dup2(input[0], STDIN_FILENO);
    ::dup2(output[1], STDOUT_FILENO);
    if (const int null = ::open("/dev/null", O_WRONLY); null >= 0) ::dup2(null, STDERR_FILENO);
    std::vector<char*> words;
    for (const auto& word : command) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    ::execvp(words[0], words.data());
    ::_exit(127);
  }
  ::close(input[0]);
  ::close(output[1]);
  to_child_ = input[1];
  from_child_ = output[0];
  const auto first = read_line();
  if (!first) {
    missing_ = command[0] + " did not start";
  } else if (first->contains("missing")) {
    missing_ = (*first)["missing"].get<std::string>();
  } else if (first->contains("error")) {
    missing_ = (*first)["error"].get<std::string>();
  } else {
    settings_ = *first;
  }
}

BenchServer::~BenchServer() {
  if (to_child_ >= 0) ::close(to_child_);
  if (from_child_ >= 0) ::close(from_child_);
  if (process_ > 0) {
    ::kill(process_, SIGTERM);
    ::waitpid(process_, nullptr, 0);
  }
}

base::Json BenchServer::run() {
  constexpr std::string_view kRun = "run\n";
  const bool sent = ::write(to_child_, kRun.data(), kRun.size()) == static_cast<ssize_t>(kRun.size());
  const auto answer = sent ? read_line() : std::nullopt;
  if (!answer) base::fail("{}: the measurement process ended early", name_);
  if (answer->contains("error")) base::fail("{}: {}", name_, (*answer)["error"].get<std::string>());
  return *answer;
}

std::optional<base::Json> BenchServer::read_line() {
  for (;;) {
    const auto end = buffer_.find('\n');
    if (end != std::string::npos) {
      const std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return base::parse_json(line, name_);
    }
    char chunk[4096];
    const ssize_t count = ::read(from_child_, chunk, sizeof(chunk));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return std::nullopt;
    buffer_.append(chunk, static_cast<std::size_t>(count));
  }
}

void serve_measurements(const base::OrderedJson& settings, const std::function<base::OrderedJson()>& round) {
  base::OrderedJson ready{{"ready", true}};
  if (settings.is_object()) ready.update(settings);
  std::cout << ready.dump() << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "quit") return;
    if (line == "run") std::cout << round().dump() << std::endl;
  }
}

}  // namespace gantry::cli
