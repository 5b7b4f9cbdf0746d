#include "gantry/measure/launch.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "gantry/base/check.h"
#include "gantry/base/env.h"
#include "gantry/base/file.h"
#include "gantry/base/interrupt.h"
#include "gantry/base/process.h"

extern char** environ;

namespace gantry::measure {
namespace {

constexpr int kDefaultPort = 29500;
constexpr long kMostRanks = 65536;

struct LauncherNames {
  const char* rank;
  const char* ranks;
  const char* per_node;
};
constexpr LauncherNames kLaunchers[] = {
    {"RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"},
    // A batch script that srun did not start has SLURM_PROCID, too, but no step of several tasks.
    {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE"},
};

int number(const char* name, const std::string& text, long least, long most) {
  long value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  // "4(x2)": four tasks on each of two nodes.
  const bool whole = stop == end || std::string_view(stop, end).starts_with("(x");
  GANTRY_CHECK(error == std::errc() && whole && value >= least && value <= most,
               "{} must be a number from {} to {}, found '{}'", name, least, most, text);
  return static_cast<int>(value);
}

RankPlace place_of(const LauncherNames& names) {
  RankPlace place;
  place.ranks = number(names.ranks, *base::env(names.ranks), 1, kMostRanks);
  place.rank = number(names.rank, *base::env(names.rank), 0, place.ranks - 1);
  const auto per_node = base::env(names.per_node);
  place.per_node = per_node ? number(names.per_node, *per_node, 1, kMostRanks) : place.ranks;
  GANTRY_CHECK(place.per_node <= place.ranks && place.ranks % place.per_node == 0,
               "the launcher started {} ranks with {} on a node; every node must have as many", place.ranks,
               place.per_node);
  const auto address = base::env("MASTER_ADDR");
  GANTRY_CHECK(address || place.nodes() == 1,
               "the launcher started ranks on {} nodes: set MASTER_ADDR to the host of rank 0 (and MASTER_PORT to a "
               "free port there)",
               place.nodes());
  if (address) place.address = *address;
  const auto port = base::env("MASTER_PORT");
  place.port = port ? number("MASTER_PORT", *port, 1, 65535) : kDefaultPort;
  place.served = base::env("TORCHELASTIC_USE_AGENT_STORE").value_or("") == "True";
  return place;
}

/// The arguments of this process, its own path first.
std::vector<std::string> own_command() {
  std::vector<std::string> words;
  const int file = ::open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
  if (file < 0) base::fail("cannot read /proc/self/cmdline: {}", std::strerror(errno));
  std::string text;
  char buffer[4096];
  for (ssize_t got = 0; (got = ::read(file, buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<size_t>(got));
  ::close(file);
  for (std::size_t begin = 0; begin < text.size();) {
    words.emplace_back(text.c_str() + begin);
    begin += words.back().size() + 1;
  }
  if (words.empty()) base::fail("/proc/self/cmdline is empty");
  words.front() = std::filesystem::read_symlink("/proc/self/exe").string();
  return words;
}

std::vector<std::string> environment_of(int rank, int ranks, int port) {
  const std::vector<std::string> own = {fmt::format("RANK={}", rank), fmt::format("WORLD_SIZE={}", ranks),
                                        fmt::format("LOCAL_WORLD_SIZE={}", ranks), "MASTER_ADDR=127.0.0.1",
                                        fmt::format("MASTER_PORT={}", port),
                                        // rank 0 serves already
                                        "TORCHELASTIC_USE_AGENT_STORE=True"};
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    bool replaced = false;
    for (const std::string& mine : own) {
      replaced = replaced || std::string_view(*entry).starts_with(mine.substr(0, mine.find('=') + 1));
    }
    if (!replaced) all.emplace_back(*entry);
  }
  all.insert(all.end(), own.begin(), own.end());
  return all;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

std::optional<RankPlace> launched_place() {
  for (const LauncherNames& names : kLaunchers) {
    if (base::env(names.rank) && base::env(names.ranks)) return place_of(names);
  }
  return std::nullopt;
}

LocalRanks::LocalRanks(int ranks, int port) {
  for (int rank = 1; rank < ranks; ++rank) start(rank, ranks, port);
}

void LocalRanks::start(int rank, int ranks, int port) {
  std::vector<std::string> words = own_command(), variables = environment_of(rank, ranks, port);
  const std::vector<char*> argv = pointers(words), envp = pointers(variables);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) base::fail("cannot start rank {}: {}", rank, std::strerror(errno));
  if (child == 0) {
    base::end_with_parent(parent);
    // A Ctrl-C before the rank's handler stands would kill it in silence, and the others wait for it: it is kept until
    // then.
    base::hold_interrupts();
    const int null = ::open("/dev/null", O_RDWR);
    if (null >= 0) {
      ::dup2(null, STDIN_FILENO);
      ::dup2(null, STDOUT_FILENO);
    }
    ::execve(argv[0], argv.data(), envp.data());
    ::_exit(127);
  }
  children_.push_back(child);
}

void LocalRanks::wait() {
  int failed = 0, code = 0;
  for (std::size_t i = 0; i < children_.size(); ++i) {
    int status = 0;
    while (::waitpid(children_[i], &status, 0) < 0 && errno == EINTR) {
    }
    if (status != 0 && failed == 0) {
      failed = static_cast<int>(i) + 1;
      code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
  }
  children_.clear();
  if (failed != 0) base::fail("rank {} ended with exit code {}; its message stands above", failed, code);
}

LocalRanks::~LocalRanks() {
  for (const pid_t child : children_) ::kill(child, SIGKILL);
  for (const pid_t child : children_) {
    while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
}

}  // namespace gantry::measure
