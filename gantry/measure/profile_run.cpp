#include "gantry/measure/profile_run.h"

#include <ATen/Parallel.h>

#include <charconv>

#include "gantry/base/check.h"
#include "gantry/base/process.h"
#include "gantry/base/progress.h"
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
  }
  return settings;
}

class Run {
 public:
  Run(const spec::ModelConfig& model, const std::string& model_name, const ProfileOptions& options)
      : model_(model), options_(options), settings_(settings_of(options)) {
    shapes_ = operators_to_measure(model, options.sequence, settings_.batches, settings_.dtype);
    cost::Profile& profile = report_.profile;
    profile.name = options.name;
    profile.device = base::cpu_name();
    profile.device_memory_bytes = base::total_memory_bytes();
    profile.source =
        fmt::format("gantry profile, {}: {}, {} thread(s), operators of {} at {} tokens", base::utc_time(),
                    options.quick ? "quick run" : "full run", at::get_num_threads(), model_name, options.sequence);
  }

  ProfileReport run() {
    const base::Timer timer;
    base::Progress progress("measuring", shapes_.size() + kLinkSteps, "steps");
    links(progress);
    operators(progress);
    progress.finish();
    report_.seconds = timer.seconds();
    return std::move(report_);
  }

 private:
  static constexpr std::uint64_t kLinkSteps = 4;

  void links(base::Progress& progress) {
    cost::Profile& profile = report_.profile;
    progress.update(0, "memory and matrix peaks");
    profile.memory_bytes_per_s = memory_bytes_per_s(at::kCPU, settings_.stream_bytes, settings_.links);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      profile.matrix_flops_per_s[std::string(tensor::dtype_label(dtype))] =
          matrix_flops_per_s(dtype, at::kCPU, settings_.matrix_size, settings_.links);
    }
    progress.update(1, "copies in");
    report_.copy_in = measure_copies(CopyDirection::kIn, at::kCPU, settings_.copy_bytes, settings_.links);
    progress.update(2, "copies out");
    report_.copy_out = measure_copies(CopyDirection::kOut, at::kCPU, settings_.copy_bytes, settings_.links);
    profile.copy_in = report_.copy_in.link;
    profile.copy_out = report_.copy_out.link;
    progress.update(3, "optimiser on the host");
    profile.host_update_elements_per_s = host_update_elements_per_s(settings_.update_elements, settings_.links);
  }

  void operators(base::Progress& progress) {
    for (std::size_t i = 0; i < shapes_.size(); ++i) {
      progress.update(kLinkSteps + i, shapes_[i].op);
      report_.operators.push_back(measure_operator(shapes_[i], model_, settings_.dtype, at::kCPU, settings_.operators));
      report_.profile.operators.push_back(report_.operators.back().time);
    }
    progress.update(kLinkSteps + shapes_.size());
  }

  const spec::ModelConfig& model_;
  const ProfileOptions& options_;
  const Settings settings_;
  std::vector<OperatorShape> shapes_;
  ProfileReport report_;
};

}  // namespace

ProfileReport run_profile(const spec::ModelConfig& model, const std::string& model_name,
                          const ProfileOptions& options) {
  if (options.threads > 0) at::set_num_threads(static_cast<int>(options.threads));
  return Run(model, model_name, options).run();
}

}  // namespace gantry::measure
