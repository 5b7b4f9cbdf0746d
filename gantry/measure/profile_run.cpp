#include "gantry/measure/profile_run.h"

#include <ATen/Parallel.h>

#include <charconv>
#include <cstdlib>
#include <functional>
#include <memory>

#include "gantry/base/check.h"
#include "gantry/base/process.h"
#include "gantry/base/progress.h"
#include "gantry/base/threads.h"
#include "gantry/base/timer.h"
#include "gantry/cost/field_reader.h"
#include "gantry/tensor/dtype.h"

namespace gantry::measure {
namespace {

constexpr std::int64_t kMiB = 1 << 20;

struct Settings {
  at::ScalarType dtype = at::kFloat;
  std::vector<std::int64_t> batches;
  TimingOptions operators{.budget_s = 0.6, .least_runs = 5};
  TimingOptions links{.budget_s = 0.3, .least_runs = 5};
  std::vector<std::int64_t> copy_bytes = {kMiB, 2 * kMiB, 4 * kMiB, 8 * kMiB, 16 * kMiB, 32 * kMiB, 64 * kMiB};
  std::int64_t stream_bytes = 512 * kMiB;
  std::int64_t matrix_size = 2048;
  std::int64_t update_elements = 16 * kMiB;
  CollectiveOptions collectives{.sizes_bytes = {kMiB / 4, kMiB, 4 * kMiB, 16 * kMiB, 32 * kMiB}, .runs = 9};
  InterferenceOptions interference;
};

std::int64_t parse_batch(const std::string& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  GANTRY_CHECK(error == std::errc() && end == text.data() + text.size() && value >= 1,
               "--batch takes numbers of sequences from 1, found '{}'", text);
  return value;
}

Settings settings_of(const ProfileOptions& options) {
  GANTRY_CHECK(options.dtype == "fp32" || options.dtype == "bf16", "--dtype must be fp32 or bf16, found '{}'",
               options.dtype);
  GANTRY_CHECK(options.threads >= 0 && options.threads <= 4096, "--threads must be from 0 to 4096, found {}",
               options.threads);
  cost::check_name(options.name, "--name");
  GANTRY_CHECK(!options.batch.empty(), "--batch needs at least one micro-batch size");
  Settings settings;
  settings.dtype = tensor::parse_dtype(options.dtype);
  for (const std::string& text : options.batch) settings.batches.push_back(parse_batch(text));
  if (options.quick) {
    settings.operators = {.budget_s = 0.05, .least_runs = 3};
    settings.links = {.budget_s = 0.05, .least_runs = 3};
    settings.copy_bytes = {kMiB, 4 * kMiB, 16 * kMiB};
    settings.stream_bytes = 64 * kMiB;
    settings.matrix_size = 1024;
    settings.update_elements = 2 * kMiB;
    settings.collectives = {.sizes_bytes = {kMiB / 4, kMiB, 4 * kMiB}, .runs = 3};
    settings.interference = {.short_s = 1e-3, .long_s = 3e-3, .repeats = 3};
  }
  return settings;
}

int threads_of(const ProfileOptions& options) {
  return options.threads > 0 ? static_cast<int>(options.threads) : base::available_threads();
}

/// Others' work in the last minute, in processors.
double load() {
  double average = 0;
  return ::getloadavg(&average, 1) == 1 ? average : 0;
}

/// Empty on an idle machine. A short operator whose threads wait for a processor takes a time slice, every time:
/// neither medians nor the spread show it.
std::string busy_text() {
  const double average = load();
  const int processors = base::available_threads();
  if (average < 0.5 * processors) return "";
  return fmt::format(", busy machine (load {:.1f} on {} processors)", average, processors);
}

/// What all ranks do together.
struct Shared {
  std::vector<MeasuredCollective> collectives;
  MeasuredInterference interference;
};

Shared measure_shared(const ProfileOptions& options, const Settings& settings, MeetingPoint* meeting,
                      const std::function<void(const std::string&)>& before) {
  const RankPlace place = meeting != nullptr ? meeting->place() : RankPlace();
  at::set_num_threads(std::max(1, threads_of(options) / place.per_node));
  std::unique_ptr<Group> world;
  Shared shared;
  if (meeting != nullptr) {
    before("meeting the other ranks");
    world = std::make_unique<Group>(*meeting, cost::GroupShape{place.nodes(), place.per_node});
    shared.collectives = measure_collectives(*meeting, *world, settings.collectives, [&](cost::GroupShape shape) {
      before(fmt::format("collectives of {} x {} ranks", shape.nodes, shape.per_node));
    });
  }
  shared.interference = measure_interference(world.get(), settings.interference, [&](int round) {
    before(fmt::format("channels together, round {}", round + 1));
  });
  if (world != nullptr) world->barrier();
  at::set_num_threads(threads_of(options));
  return shared;
}

class Run {
 public:
  Run(const spec::ModelConfig& model, const std::string& model_name, const ProfileOptions& options,
      MeetingPoint* meeting)
      : model_(model), options_(options), settings_(settings_of(options)), meeting_(meeting) {
    shapes_ = operators_to_measure(model, options.sequence, settings_.batches, settings_.dtype);
    cost::Profile& profile = report_.profile;
    profile.name = options.name;
    profile.device = base::cpu_name();
    profile.device_memory_bytes = base::total_memory_bytes();
    profile.source = fmt::format("gantry profile, {}: {}, {} thread(s), operators of {} at {} tokens", base::utc_time(),
                                 options.quick ? "quick run" : "full run", at::get_num_threads(), model_name,
                                 options.sequence, busy_text());
  }

  ProfileReport run() {
    const base::Timer timer;
    base::Progress progress("measuring", steps(), "steps");
    progress_ = &progress;
    shared();
    links();
    operators();
    progress.update(steps());
    progress.finish();
    progress_ = nullptr;
    report_.seconds = timer.seconds();
    return std::move(report_);
  }

 private:
  std::uint64_t steps() const {
    constexpr std::uint64_t kLinkSteps = 4;
    const std::size_t meetings = meeting_ != nullptr ? 1 + shapes_to_measure(meeting_->place()).size() : 0;
    return shapes_.size() + kLinkSteps + meetings + static_cast<std::size_t>(settings_.interference.repeats);
  }

  void begin(const std::string& what) { progress_->update(done_++, what); }

  void shared() {
    Shared measured = measure_shared(options_, settings_, meeting_, [&](const std::string& what) { begin(what); });
    report_.collectives = std::move(measured.collectives);
    report_.interference = std::move(measured.interference);
    for (const MeasuredCollective& collective : report_.collectives) {
      report_.profile.collectives.push_back(
          {.per_node = collective.shape.per_node, .nodes = collective.shape.nodes, .link = collective.link});
    }
    report_.profile.interference.push_back(
        {.factors = report_.interference.factors, .residual = report_.interference.residual});
  }

  void links() {
    cost::Profile& profile = report_.profile;
    begin("memory and matrix peaks");
    profile.memory_bytes_per_s = memory_bytes_per_s(at::kCPU, settings_.stream_bytes, settings_.links);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      profile.matrix_flops_per_s[std::string(tensor::dtype_label(dtype))] =
          matrix_flops_per_s(dtype, at::kCPU, settings_.matrix_size, settings_.links);
    }
    begin("copies in");
    report_.copy_in = measure_copies(CopyDirection::kIn, at::kCPU, settings_.copy_bytes, settings_.links);
    begin("copies out");
    report_.copy_out = measure_copies(CopyDirection::kOut, at::kCPU, settings_.copy_bytes, settings_.links);
    profile.copy_in = report_.copy_in.link;
    profile.copy_out = report_.copy_out.link;
    begin("optimiser on the host");
    profile.host_update_elements_per_s = host_update_elements_per_s(settings_.update_elements, settings_.links);
  }

  void operators() {
    for (const OperatorShape& shape : shapes_) {
      begin(shape.op);
      report_.operators.push_back(measure_operator(shape, model_, settings_.dtype, at::kCPU, settings_.operators));
      report_.profile.operators.push_back(report_.operators.back().time);
    }
  }

  const spec::ModelConfig& model_;
  const ProfileOptions& options_;
  const Settings settings_;
  MeetingPoint* const meeting_;
  base::Progress* progress_ = nullptr;
  std::uint64_t done_ = 0;
  std::vector<OperatorShape> shapes_;
  ProfileReport report_;
};

}  // namespace

void check_options(const spec::ModelConfig& model, const ProfileOptions& options) {
  const Settings settings = settings_of(options);
  operators_to_measure(model, options.sequence, settings.batches, settings.dtype);
}

ProfileReport run_profile(const spec::ModelConfig& model, const std::string& model_name, const ProfileOptions& options,
                          MeetingPoint* meeting) {
  return Run(model, model_name, options, meeting).run();
}

void assist_profile(const ProfileOptions& options, MeetingPoint& meeting) {
  measure_shared(options, settings_of(options), &meeting, [](const std::string&) {});
}

}  // namespace gantry::measure
