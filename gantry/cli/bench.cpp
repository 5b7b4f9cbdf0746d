// gantry bench: foundation, the speed rows of docs/results/foundation.md, baselines and Gantry in turns, medians;
// plan (planner/bench_plan.h) and layers (layers_bench/suite.h).
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "gantry/base/interrupt.h"
#include "gantry/base/statistics.h"
#include "gantry/base/timer.h"
#include "gantry/cli/bench_measure.h"
#include "gantry/cli/bench_server.h"
#include "gantry/cli/layers_bench/suite.h"
#include "gantry/cli/planner/bench_output.h"
#include "gantry/cli/planner/bench_plan.h"
#include "gantry/cli/verbs.h"

namespace gantry::cli {
namespace {

namespace fs = std::filesystem;

struct BenchOptions {
  std::string model = "build/model/bench";
  std::string gguf = "build/model/SmolLM2-135M-Instruct.Q4_1.gguf";
  std::string python = ".venv-bench/bin/python";

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit("model", model, "folder with SmolLM2 as bf16 safetensors, bf16 GGUF and fp32 (made when missing)");
    visit("gguf", gguf, "what that folder is made from (make model)");
    visit("python", python, "interpreter with the baselines (make bench-setup)");
  }
};

std::string own_binary() { return fs::read_symlink("/proc/self/exe").string(); }

class FoundationSuite {
 public:
  FoundationSuite(const planner::SuiteOptions& suite, const BenchOptions& options, const MeasureOptions& measure)
      : suite_(suite), options_(options), measure_(measure), out_("foundation", form_of(suite), 4) {}

  void run() {
    prepare();
    if (wanted("load_first_token_s")) load_first_token();
    if (wanted("decode_vs_bandwidth") || wanted("decode_vs_llamacpp") || wanted("decode_vs_transformers")) decode();
    train_row("train_step_vs_pytorch_bf16", "bf16", "bf16-autocast");
    train_row("train_step_vs_pytorch_pure_bf16", "bf16", "bf16");
    train_row("train_step_vs_pytorch_fp32", "fp32", "fp32");
    if (wanted("build_clean_s")) build_clean();
    if (wanted("rebuild_kernel_s")) rebuild_kernel();
  }

 private:
  void prepare() const {
    prepare_models(options_.gguf, options_.model);
    const fs::path gguf = fs::path(options_.model) / "smollm2-bf16.gguf";
    if (fs::exists(gguf) || !fs::exists(options_.python)) return;
    const std::string command = "'" + options_.python + "' '" + suite_.source +
                                "/bench/baselines/make_bf16_gguf.py' '" + options_.gguf + "' '" + gguf.string() +
                                "' >/dev/null 2>&1";
    // Without it the llama.cpp row says what is missing.
    if (std::system(command.c_str()) != 0) fs::remove(gguf);
  }

  bool wanted(const std::string& row) const { return planner::wants(suite_, row); }

  void emit(const std::string& row, double value, const std::string& unit, const std::string& baseline,
            double baseline_value, double ratio, std::int64_t runs) {
    out_.row({row, value, unit, baseline, baseline_value, ratio, runs});
  }

  std::string model_dir(const std::string& dtype) const { return (fs::path(options_.model) / dtype).string(); }

  std::unique_ptr<BenchServer> ours(const std::string& what, const std::string& dtype) const {
    return std::make_unique<BenchServer>(
        "gantry " + what,
        std::vector<std::string>{own_binary(), "bench", "foundation", "--measure", what, "--dtype", dtype, "--model",
                                 model_dir(dtype), "--threads", std::to_string(measure_.threads), "--tokens",
                                 std::to_string(measure_.tokens), "--batch", std::to_string(measure_.batch),
                                 "--sequence-length", std::to_string(measure_.sequence_length)});
  }

  std::unique_ptr<BenchServer> baseline(const std::string& script, std::vector<std::string> arguments) const {
    std::vector<std::string> command{options_.python, (fs::path(suite_.source) / "bench/baselines" / script).string()};
    command.insert(command.end(), arguments.begin(), arguments.end());
    command.insert(command.end(), {"--threads", std::to_string(measure_.threads)});
    return std::make_unique<BenchServer>(script, command);
  }

  // Rounds of all servers in turn; one column of `key` a server.
  std::vector<std::vector<double>> interleave(const std::vector<BenchServer*>& servers,
                                              const std::vector<std::string>& keys) {
    std::vector<std::vector<double>> columns(servers.size());
    for (std::int64_t round = 0; round < suite_.rounds; ++round) {
      for (std::size_t i = 0; i < servers.size(); ++i) {
        if (base::interrupted()) throw base::Interrupted("interrupted");
        const base::Json result = servers[i]->run();
        columns[i].push_back(base::json_get<double>(result, keys[i], "measurement"));
        const auto timed = base::json_get_or<std::int64_t>(result, "tokens", measure_.tokens - 1, "measurement");
        if (timed != measure_.tokens - 1) {
          base::fail("a decoder timed {} tokens, expected {}; the rows would not compare", timed, measure_.tokens - 1);
        }
      }
    }
    return columns;
  }

  // A new process each round: loads the model (page cache warm) and prints the first token.
  void load_first_token() {
    std::vector<double> seconds;
    for (std::int64_t round = 0; round <= suite_.rounds; ++round) {
      const std::string command = "'" + own_binary() + "' generate '" + model_dir("bf16") +
                                  "' --prompt 'The capital of France is' --max-tokens 1 >/dev/null 2>&1";
      const base::Timer timer;
      if (std::system(command.c_str()) != 0) base::fail("load_first_token_s: `{}` failed", command);
      if (round > 0) seconds.push_back(timer.seconds());
    }
    emit("load_first_token_s", base::median(seconds), "s", "bar", 1.0, 1.0 / base::median(seconds), suite_.rounds);
  }

  void decode() {
    const auto gantry = ours("decode", "bf16"), bandwidth = ours("bandwidth", "bf16");
    if (!gantry->missing().empty()) base::fail("decode: {}", gantry->missing());
    const std::string tokens = std::to_string(measure_.tokens);
    auto llama = wanted("decode_vs_llamacpp")
                     ? baseline("decode_llamacpp.py",
                                with_model(fs::path(options_.model) / "smollm2-bf16.gguf", {"--tokens", tokens}))
                     : nullptr;
    auto transformers =
        wanted("decode_vs_transformers")
            ? baseline("decode_transformers.py", with_model(model_dir("bf16"), {"--dtype", "bf16", "--tokens", tokens}))
            : nullptr;
    std::vector<BenchServer*> servers{gantry.get(), bandwidth.get()};
    std::vector<std::string> keys{"tokens_per_s", "bytes_per_s"};
    for (const auto* server : {&llama, &transformers}) {
      if (*server == nullptr || !(*server)->missing().empty()) continue;
      servers.push_back(server->get());
      keys.push_back("tokens_per_s");
    }
    const auto columns = interleave(servers, keys);
    const double speed = base::median(columns[0]);
    const double bound = base::median(columns[1]) / gantry->settings()["weight_bytes"].get<double>();
    if (wanted("decode_vs_bandwidth")) {
      emit("decode_vs_bandwidth", speed, "tokens/s", "memory bandwidth", bound, speed / bound, suite_.rounds);
    }
    std::size_t next = 2;
    const auto compare = [&](const char* row, const char* name, const std::unique_ptr<BenchServer>& server) {
      if (server == nullptr) return;
      if (!server->missing().empty()) return out_.missing(row, name, server->missing());
      const double theirs = base::median(columns[next++]);
      emit(row, speed, "tokens/s", name, theirs, speed / theirs, suite_.rounds);
    };
    compare("decode_vs_llamacpp", "llama.cpp bf16", llama);
    compare("decode_vs_transformers", "transformers bf16", transformers);
  }

  static std::vector<std::string> with_model(const fs::path& model, std::vector<std::string> rest) {
    rest.insert(rest.begin(), model.string());
    return rest;
  }

  void train_row(const std::string& row, const std::string& dtype, const std::string& peer) {
    if (!wanted(row)) return;
    const auto gantry = ours("train", dtype);
    if (!gantry->missing().empty()) base::fail("{}: {}", row, gantry->missing());
    const auto pytorch =
        baseline("train_step.py", with_model(model_dir(dtype == "fp32" ? "fp32" : "bf16"),
                                             {"--dtype", peer, "--batch", std::to_string(measure_.batch), "--seq",
                                              std::to_string(measure_.sequence_length)}));
    if (!pytorch->missing().empty()) return out_.missing(row, "PyTorch " + peer, pytorch->missing());
    std::vector<double> our_speed, their_speed;
    double our_memory = 0, their_memory = 0;
    for (std::int64_t round = 0; round < suite_.rounds; ++round) {
      const base::Json mine = gantry->run(), theirs = pytorch->run();
      our_speed.push_back(mine["tokens_per_s"].get<double>());
      their_speed.push_back(theirs["tokens_per_s"].get<double>());
      our_memory = std::max(our_memory, mine["peak_rss_bytes"].get<double>());
      their_memory = std::max(their_memory, theirs["peak_rss_bytes"].get<double>());
    }
    emit(row, base::median(our_speed), "tokens/s", "PyTorch " + peer, base::median(their_speed),
         base::median(our_speed) / base::median(their_speed), suite_.rounds);
    const double mib = 1 << 20;
    emit(row + "_memory", our_memory / mib, "MiB", "PyTorch " + peer, their_memory / mib, our_memory / their_memory,
         suite_.rounds);
  }

  double timed(const std::string& row, const std::string& command) {
    const base::Timer timer;
    if (std::system((command + " >/dev/null 2>&1").c_str()) != 0) base::fail("{}: `{}` failed", row, command);
    return timer.seconds();
  }

  // Everything that `make build` compiles, without ccache, in a folder of its own.
  void build_clean() {
    const fs::path dir = fs::temp_directory_path() / ("gantry-build-" + std::to_string(::getpid()));
    const std::string configure = "cmake --preset release -S '" + suite_.source + "' -B '" + dir.string() + "'" +
                                  (std::getenv("Torch_DIR") != nullptr ? " -DGANTRY_BUILD_PYTHON=OFF" : "");
    timed("build_clean_s", configure);
    const double seconds = timed("build_clean_s", "CCACHE_DISABLE=1 cmake --build '" + dir.string() + "' -j 2");
    fs::remove_all(dir);
    emit("build_clean_s", seconds, "s", "bar", 720, 720 / seconds, 1);
  }

  // One raw kernel touched, the program relinked, in the tree that this binary was built in.
  void rebuild_kernel() {
    const fs::path build = fs::path(own_binary()).parent_path().parent_path();
    const fs::path kernel = fs::path(suite_.source) / "gantry/kernels/rms_norm/rms_norm_cpu.cpp";
    std::vector<double> seconds;
    timed("rebuild_kernel_s", "cmake --build '" + build.string() + "' --target gantry");
    for (std::int64_t round = 0; round < 3; ++round) {
      fs::last_write_time(kernel, fs::file_time_type::clock::now());
      seconds.push_back(
          timed("rebuild_kernel_s", "CCACHE_DISABLE=1 cmake --build '" + build.string() + "' --target gantry"));
    }
    emit("rebuild_kernel_s", base::median(seconds), "s", "bar", 30, 30 / base::median(seconds), 3);
  }

  static planner::BenchOutput::Form form_of(const planner::SuiteOptions& suite) {
    return suite.json ? planner::BenchOutput::Form::kJson : planner::BenchOutput::Form::kText;
  }

  const planner::SuiteOptions& suite_;
  const BenchOptions& options_;
  const MeasureOptions& measure_;
  planner::BenchOutput out_;
};

void run_layers(const BenchOptions& options, const MeasureOptions& measure, const planner::PlanBenchOptions& plan,
                const layers_bench::LayersBenchOptions& layers) {
  check_measure(measure);
  using Form = planner::BenchOutput::Form;
  planner::BenchOutput out("layers", plan.json ? Form::kJson : plan.markdown ? Form::kMarkdown : Form::kText, 4);
  layers_bench::bench_layers({plan, layers, options.python, measure.threads, out});
}

}  // namespace

void add_bench(Command& program) {
  Command& verb = program.add_verb("bench", "The project's own benchmarks, next to what you would use instead");
  struct State {
    std::string suite;
    BenchOptions options;
    MeasureOptions measure;
    planner::PlanBenchOptions plan;
    layers_bench::LayersBenchOptions layers;
  };
  auto state = std::make_shared<State>();
  verb.positional("SUITE", state->suite, "foundation, plan or layers");
  auto& common = static_cast<planner::SuiteOptions&>(state->plan);
  verb.options(state->options);
  verb.options(common);
  verb.options(state->measure);
  verb.options(state->plan);
  verb.options(state->layers);
  verb.on_run([state] {
    if (state->suite == "plan") {
      planner::bench_plan(state->plan);
      return 0;
    }
    if (state->suite == "layers") {
      run_layers(state->options, state->measure, state->plan, state->layers);
      return 0;
    }
    GANTRY_CHECK(state->suite == "foundation", "there is no benchmark suite '{}'; there are: foundation, plan, layers",
                 state->suite);
    GANTRY_CHECK(state->plan.rounds > 0, "--rounds is {}, expected at least 1", state->plan.rounds);
    check_measure(state->measure);
    if (!state->measure.measure.empty()) {
      serve_measure(state->options.model, state->measure);
    } else {
      FoundationSuite(state->plan, state->options, state->measure).run();
    }
    return 0;
  });
}

}  // namespace gantry::cli
