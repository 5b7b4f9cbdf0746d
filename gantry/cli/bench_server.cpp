#include "gantry/cli/bench_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <thread>

#include "gantry/base/interrupt.h"
#include "gantry/base/process.h"

namespace gantry::cli {
namespace {

constexpr int kPollMs = 100;
constexpr std::chrono::milliseconds kGrace{500}, kNap{5};

// In the child, between fork and exec.
[[noreturn]] void become(const std::vector<std::string>& command, int input, int output, pid_t parent) {
  ::setpgid(0, 0);
  base::end_with_parent(parent);
  ::dup2(input, STDIN_FILENO);
  ::dup2(output, STDOUT_FILENO);
  if (const int null = ::open("/dev/null", O_WRONLY); null >= 0) ::dup2(null, STDERR_FILENO);
  std::vector<char*> words;
  for (const auto& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  ::execvp(words[0], words.data());
  ::_exit(127);
}

bool ends_within(int process, std::chrono::milliseconds limit) {
  for (std::chrono::milliseconds waited{0}; waited < limit; waited += kNap) {
    if (::waitpid(process, nullptr, WNOHANG) != 0) return true;
    std::this_thread::sleep_for(kNap);
  }
  return false;
}

}  // namespace

ChildProcess::ChildProcess(const std::string& name, const std::vector<std::string>& command) {
  std::signal(SIGPIPE, SIG_IGN);
  int input[2], output[2];
  if (::pipe2(input, O_CLOEXEC) != 0 || ::pipe2(output, O_CLOEXEC) != 0) base::fail("{}: cannot make a pipe", name);
  const pid_t parent = ::getpid();
  process_ = ::fork();
  if (process_ < 0) base::fail("{}: cannot start a process", name);
  if (process_ == 0) become(command, input[0], output[1], parent);
  ::setpgid(process_, process_);  // in both processes, so that the group exists whoever runs first
  ::close(input[0]);
  ::close(output[1]);
  to_child_ = input[1];
  from_child_ = output[0];
}

ChildProcess::~ChildProcess() {
  ::close(to_child_);
  ::close(from_child_);
  ::kill(-process_, SIGTERM);
  if (!base::interrupted() && ends_within(process_, kGrace)) return;
  ::kill(-process_, SIGKILL);
  while (::waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

bool ChildProcess::write(std::string_view text) const {
  return ::write(to_child_, text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

std::string ChildProcess::read() const {
  for (;;) {
    if (base::interrupted()) throw base::Interrupted("interrupted");
    pollfd ready{.fd = from_child_, .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, kPollMs) <= 0) continue;
    char chunk[4096];
    const ssize_t count = ::read(from_child_, chunk, sizeof(chunk));
    if (count >= 0) return {chunk, static_cast<std::size_t>(count)};
    if (errno != EINTR) return {};
  }
}

BenchServer::BenchServer(std::string name, const std::vector<std::string>& command)
    : name_(std::move(name)), process_(name_, command) {
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

base::Json BenchServer::run() {
  const auto answer = process_.write("run\n") ? read_line() : std::nullopt;
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
    const std::string chunk = process_.read();
    if (chunk.empty()) return std::nullopt;
    buffer_ += chunk;
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
