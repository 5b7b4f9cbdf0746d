// gantry profile: measures this machine into a hardware profile that the planner reads.
#include "gantry/cost/profile.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "gantry/base/file.h"
#include "gantry/cli/verbs.h"
#include "gantry/cost/roofline.h"
#include "gantry/measure/profile_run.h"
#include "gantry/models/load.h"
#include "gantry/spec/named_models.h"

namespace gantry::cli {
namespace {

namespace fs = std::filesystem;

struct ProfileVerbOptions {
  std::string model = "smollm2-135m";
  std::optional<std::string> output;
  std::int64_t ranks = 2;
  bool json = false;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit("model", model, "whose operators: a name (as for gantry plan), a model folder or .gguf file");
    visit("output", output, "profile to write; without it the one that 'this' means");
    visit("ranks", ranks, "processes on this machine that measure collectives; 1: none. Ignored under a launcher");
    visit("json", json, "print one JSON object");
  }
};

spec::ModelConfig find_model(const std::string& name) {
  std::error_code ignored;
  if (fs::exists(name, ignored)) return models::load_config(name);
  return spec::named_model(name);
}

base::OrderedJson link_json(const cost::Link& link) {
  return {{"gib_per_s", link.gb_per_s}, {"latency_s", link.latency_s}, {"residual", link.residual}};
}

std::string sizes_text(const cost::OperatorTime& time) {
  std::vector<std::string> words;
  const auto names = cost::operator_size_names(time.op);
  for (std::size_t i = 0; i < names.size(); ++i) words.push_back(fmt::format("{} {}", names[i], time.sizes[i]));
  return fmt::format("{}", fmt::join(words, ", "));
}

/// "85.1 GF/s" of matrix operators, "12.3 GB/s" of others (10^9 bytes).
std::string rate_text(const cost::Work& work, double seconds, bool matrix) {
  if (seconds <= 0) return "-";
  const double amount = matrix ? work.flops : work.bytes;
  return fmt::format("{:.1f} {}", amount / seconds / 1e9, matrix ? "GF/s" : "GB/s");
}

base::OrderedJson report_json(const measure::ProfileReport& report, const std::string& path) {
  const cost::Profile& profile = report.profile;
  base::OrderedJson json{{"profile", path},
                         {"hash", cost::profile_hash(profile)},
                         {"source", profile.source},
                         {"seconds", report.seconds},
                         {"memory_bytes_per_s", profile.memory_bytes_per_s},
                         {"matrix_flops_per_s", profile.matrix_flops_per_s},
                         {"host_update_elements_per_s", profile.host_update_elements_per_s},
                         {"copy_in", link_json(profile.copy_in)},
                         {"copy_out", link_json(profile.copy_out)}};
  json["collectives"] = base::OrderedJson::array();
  for (const measure::MeasuredCollective& collective : report.collectives) {
    base::OrderedJson entry{{"per_node", collective.shape.per_node}, {"nodes", collective.shape.nodes}};
    entry.update(link_json(collective.link));
    entry["reduce_scatter_ratio"] = collective.reduce_scatter_ratio;
    entry["all_reduce_ratio"] = collective.all_reduce_ratio;
    json["collectives"].push_back(std::move(entry));
  }
  json["interference"] = {{"combinations", report.interference.samples.size()},
                          {"residual", report.interference.residual},
                          {"held_out_error", report.interference.held_out_error},
                          {"sum_error", report.interference.sum_error},
                          {"max_error", report.interference.max_error}};
  json["operators"] = base::OrderedJson::array();
  for (const measure::MeasuredOperator& measured : report.operators) {
    base::OrderedJson entry{{"op", measured.time.op},
                            {"dtype", measured.time.dtype},
                            {"sizes", measured.time.sizes},
                            {"forward_s", measured.time.forward_s},
                            {"backward_s", measured.time.backward_s},
                            {"spread", measured.spread},
                            {"runs", measured.runs}};
    json["operators"].push_back(std::move(entry));
  }
  return json;
}

void print_operators(const measure::ProfileReport& report) {
  std::printf("  %-16s %-58s %11s %11s %12s %12s %7s\n", "operator", "sizes", "forward ms", "backward ms", "forward",
              "backward", "spread");
  for (const measure::MeasuredOperator& measured : report.operators) {
    const cost::OperatorTime& time = measured.time;
    const cost::OperatorWork work = cost::operator_work(time.op, time.sizes, time.dtype == "fp32" ? 4 : 2);
    const bool matrix = cost::is_matrix_operator(time.op);
    std::printf("  %-16s %-58s %11.3f %11.3f %12s %12s %6.1f%%\n", time.op.c_str(), sizes_text(time).c_str(),
                1e3 * time.forward_s, 1e3 * time.backward_s, rate_text(work.forward, time.forward_s, matrix).c_str(),
                rate_text(work.backward, time.backward_s, matrix).c_str(), 100 * measured.spread);
  }
}

void print_link(const char* name, const cost::Link& link) {
  std::printf("  %-28s %9.2f GiB/s %9.1f us latency %9.1f%% residual\n", name, link.gb_per_s, 1e6 * link.latency_s,
              100 * link.residual);
}

void print_profile(const measure::ProfileReport& report, const std::string& path) {
  const cost::Profile& profile = report.profile;
  std::printf("%s, measured in %.0f s -> %s\n%s\n\n", profile.device.c_str(), report.seconds, path.c_str(),
              profile.source.c_str());
  print_operators(report);
  std::printf("\n  %-28s %9.1f GB/s\n", "memory", profile.memory_bytes_per_s / 1e9);
  for (const auto& [dtype, flops] : profile.matrix_flops_per_s) {
    std::printf("  %-28s %9.1f GF/s\n", ("matrix product, " + dtype).c_str(), flops / 1e9);
  }
  std::printf("  %-28s %9.1f million elements/s\n", "AdamW on the host", profile.host_update_elements_per_s / 1e6);
  print_link("copy in", profile.copy_in);
  print_link("copy out", profile.copy_out);
  for (const measure::MeasuredCollective& collective : report.collectives) {
    const std::string name =
        fmt::format("all-gather, {} x {} ranks", collective.shape.nodes, collective.shape.per_node);
    print_link(name.c_str(), collective.link);
    std::printf("  %-28s reduce-scatter %.2f, all-reduce %.2f of the predicted time\n", "",
                collective.reduce_scatter_ratio, collective.all_reduce_ratio);
  }
  const measure::MeasuredInterference& together = report.interference;
  std::printf("  %-28s %9zu combinations, error %.1f%% (held out %.1f%%); sum %.1f%%, max %.1f%%\n",
              "channels together", together.samples.size(), 100 * together.residual, 100 * together.held_out_error,
              100 * together.sum_error, 100 * together.max_error);
}

/// Where the profile goes; says so before minutes of measuring where it cannot.
fs::path writable_path(const std::optional<std::string>& output) {
  const fs::path path = output ? fs::path(*output) : cost::user_profile_path();
  if (!output) base::make_directories(path.parent_path());
  std::error_code ignored;
  GANTRY_CHECK(!fs::is_directory(path, ignored), "--output {} is a folder; name a file", path.string());
  const base::AtomicFile probe(path);
  return path;
}

measure::ProfileReport run_with_local_ranks(const spec::ModelConfig& model, const ProfileVerbOptions& options,
                                            const measure::ProfileOptions& measure) {
  const int ranks = static_cast<int>(options.ranks);
  if (ranks == 1) return measure::run_profile(model, options.model, measure, nullptr);
  measure::MeetingPoint meeting({.ranks = ranks, .per_node = ranks});
  measure::LocalRanks others(ranks, meeting.place().port);
  measure::ProfileReport report = measure::run_profile(model, options.model, measure, &meeting);
  others.wait();
  return report;
}

measure::ProfileReport run_launched(const spec::ModelConfig& model, const ProfileVerbOptions& options,
                                    const measure::ProfileOptions& measure, const measure::RankPlace& place) {
  if (place.ranks == 1) return measure::run_profile(model, options.model, measure, nullptr);
  measure::MeetingPoint meeting(place);
  return measure::run_profile(model, options.model, measure, &meeting);
}

int profile_devices(const ProfileVerbOptions& options, const measure::ProfileOptions& measure) {
  GANTRY_CHECK(options.ranks >= 1 && options.ranks <= 64, "--ranks must be from 1 to 64, found {}", options.ranks);
  const spec::ModelConfig model = find_model(options.model);
  measure::check_options(model, measure);
  const auto launched = measure::launched_place();
  if (launched && launched->rank > 0) {
    measure::MeetingPoint meeting(*launched);
    measure::assist_profile(measure, meeting);
    return 0;
  }
  const fs::path path = writable_path(options.output);
  const measure::ProfileReport report =
      launched ? run_launched(model, options, measure, *launched) : run_with_local_ranks(model, options, measure);
  base::write_file_atomically(path, cost::profile_to_json(report.profile).dump(1) + "\n");
  if (options.json) {
    std::printf("%s\n", report_json(report, path.string()).dump().c_str());
  } else {
    print_profile(report, path.string());
  }
  return 0;
}

}  // namespace

void add_profile(Command& program) {
  Command& verb = program.add_verb("profile", "Measure this machine for the planner: operators, copies, collectives");
  struct State {
    ProfileVerbOptions options;
    measure::ProfileOptions measure;
  };
  auto state = std::make_shared<State>();
  verb.options(state->options);
  verb.options(state->measure);
  verb.on_run([state] { return profile_devices(state->options, state->measure); });
}

}  // namespace gantry::cli
