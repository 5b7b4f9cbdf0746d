#include "gantry/cli/planner/plan_options.h"

#include "gantry/base/check.h"
#include "gantry/base/file.h"
#include "gantry/plan/explain.h"

namespace gantry::cli::planner {

void check_options(const PlanOptions& options) {
  GANTRY_CHECK(options.best >= 1 && options.best <= 100, "--best {}: expected 1 to 100", options.best);
  GANTRY_CHECK(options.compare.empty() || options.compare.size() == 2, "--compare takes two plan files, found {}",
               options.compare.size());
  const int given = (options.compare.empty() ? 0 : 1) + (options.evaluate ? 1 : 0) + (options.from_megatron ? 1 : 0);
  GANTRY_CHECK(given <= 1, "give one of --evaluate, --compare and --from-megatron");
  GANTRY_CHECK(given == 0 || !options.why_not,
               "--why-not asks about a search; leave out --evaluate, --compare and "
               "--from-megatron");
  if (options.export_as) {
    const std::string& format = *options.export_as;
    GANTRY_CHECK(format == "megatron" || format == "torchtitan" || format == "deepspeed" || format == "json",
                 "--export: expected megatron, torchtitan, deepspeed or json, found '{}'", format);
  }
  if (options.why_not) plan::restrict_space(plan::named_space(options.space), *options.why_not);
  if (options.output) const base::AtomicFile writable(*options.output);
}

}  // namespace gantry::cli::planner
