// gantry plan: the fastest training plan that fits, and why.
#include <cstdio>
#include <filesystem>

#include "gantry/base/check.h"
#include "gantry/base/file.h"
#include "gantry/base/interrupt.h"
#include "gantry/base/progress.h"
#include "gantry/base/timer.h"
#include "gantry/cli/planner/inputs.h"
#include "gantry/cli/planner/plan_text.h"
#include "gantry/cli/verbs.h"
#include "gantry/plan/export.h"
#include "gantry/plan/plan_file.h"
#include "gantry/plan/verify.h"
#include "gantry/simulate/pipeline.h"

namespace gantry::cli {
namespace {

namespace text = planner;

struct PlanOptions {
  std::string space = "full";
  std::int64_t best = 3;
  bool simulate = true;
  bool explain = false;
  bool operators = false;
  std::optional<std::string> why_not;
  std::optional<std::string> evaluate;
  std::vector<std::string> compare;
  std::optional<std::string> from_megatron;
  std::optional<std::string> export_as;
  std::optional<std::string> output;
  bool json = false;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit.group("Search");
    visit("space", space, "knobs to search: megatron, deepspeed, aceso, mist or full");
    visit("best", best, "plans to rank");
    visit("simulate", simulate, "rank the best plans by simulation instead of the closed form");
    visit.group("Questions");
    visit("explain", explain, "what binds the plan, what its time and memory are made of, what each knob is worth");
    visit("operators", operators, "the operator prices behind the slowest stage, and where each comes from");
    visit("why_not", why_not, "why another choice loses: tp=8,zero=3,stages=4,checkpoint=none,...");
    visit("evaluate", evaluate, "price this plan file instead of searching");
    visit("compare", compare, "two plan files, priced side by side");
    visit("from_megatron", from_megatron, "price the plan of these Megatron-LM flags instead of searching");
    visit.group("Output");
    visit("export_as", export_as, "print the best plan for a launcher: megatron, torchtitan, deepspeed or json");
    visit("output", output, "plan file to write");
    visit("json", json, "print one JSON object");
  }
};

class PlanVerb {
 public:
  PlanVerb(const planner::TargetOptions& target, const PlanOptions& options)
      : options_(options), input_(planner::search_input(target)) {}

  int run() {
    GANTRY_CHECK(options_.compare.empty() || options_.compare.size() == 2, "--compare takes two plan files, found {}",
                 options_.compare.size());
    if (!options_.compare.empty()) return compare();
    if (options_.evaluate) return report_given(plan::read_plan(*options_.evaluate));
    if (options_.from_megatron) return from_megatron();
    return search();
  }

 private:
  plan::TrainPlan priced(plan::TrainPlan plan) const {
    plan::assign_ranks(plan, input_.cluster);
    plan::require_sound(plan, input_.model, input_.cluster);
    plan::evaluate(plan, *plan::cost_model(input_, plan));
    return plan;
  }

  // A plan file says itself what it is for.
  void adopt(const plan::TrainPlan& plan) {
    input_.sequence = plan.sequence;
    input_.global_batch = plan.global_batch;
  }

  int compare() {
    std::vector<plan::TrainPlan> plans;
    std::vector<plan::PlanExplanation> why;
    for (const std::string& path : options_.compare) {
      plan::TrainPlan plan = plan::read_plan(path);
      adopt(plan);
      plans.push_back(priced(std::move(plan)));
      why.push_back(plan::explain(plans.back(), *plan::cost_model(input_, plans.back())));
    }
    if (options_.json) {
      base::OrderedJson json;
      for (const plan::TrainPlan& plan : plans) json["plans"].push_back(plan::plan_to_json(plan));
      std::printf("%s\n", json.dump().c_str());
      return 0;
    }
    std::printf("%s\nA = %s, B = %s\n%s", text::headline(input_).c_str(), options_.compare[0].c_str(),
                options_.compare[1].c_str(), text::comparison(plans[0], why[0], plans[1], why[1]).c_str());
    return 0;
  }

  int from_megatron() {
    plan::TrainPlan base;
    base.model = input_.model_name;
    base.cluster = input_.cluster.name;
    base.profile = input_.profile.name;
    base.dtype = input_.cost.dtype;
    base.flash_attention = input_.cost.flash_attention;
    base.sequence = input_.sequence;
    base.global_batch = input_.global_batch;
    std::vector<std::string> ignored;
    plan::TrainPlan plan =
        plan::plan_from_megatron(*options_.from_megatron, base, input_.model, input_.cluster, &ignored);
    for (const std::string& flag : ignored) std::fprintf(stderr, "gantry: %s does not change the plan\n", flag.c_str());
    return report_given(std::move(plan));
  }

  int report_given(plan::TrainPlan plan) {
    adopt(plan);
    plan = priced(std::move(plan));
    const auto model = plan::cost_model(input_, plan);
    const bool fits = plan::fits(plan, *model);
    if (options_.json) {
      base::OrderedJson json = plan::plan_to_json(plan);
      std::printf("%s\n", base::OrderedJson{{"fits", fits}, {"plan", json}}.dump().c_str());
    } else {
      std::printf("%s\n\n%s\n%s\n%s\n", text::headline(input_).c_str(), text::ranking({plan}).c_str(),
                  text::stage_table(plan, *model).c_str(),
                  text::explanation(plan, plan::explain(plan, *model), *model).c_str());
      std::printf("  verdict: %s\n", fits ? "fits" : plan::infeasibility(input_, plan).c_str());
    }
    finish(plan);
    return fits ? 0 : 3;
  }

  plan::SearchResult run_search(const plan::SearchOptions& options) const {
    base::Progress progress("searching", 100, "%");
    plan::SearchOptions watched = options;
    watched.progress = [&](double share) {
      if (base::interrupted()) throw base::Interrupted("stopped; nothing was written");
      progress.update(static_cast<std::uint64_t>(share * 100));
    };
    plan::Arbiter arbiter;
    if (options_.simulate) {
      arbiter = [](const plan::TrainPlan& plan, const cost::CostModel& model) {
        return simulate::iteration_s(plan, model);
      };
    }
    return plan::search(input_, watched, arbiter);
  }

  int search() {
    GANTRY_CHECK(options_.best >= 1 && options_.best <= 100, "--best {}: expected 1 to 100", options_.best);
    plan::SearchOptions options;
    options.space = plan::named_space(options_.space);
    options.best = static_cast<int>(options_.best);
    const base::Timer timer;
    plan::SearchResult result = run_search(options);
    const double seconds = timer.seconds();
    if (!options_.json) {
      std::printf("%s\n", text::headline(input_).c_str());
      std::printf("searched the %s space in %.2f s, %ld stage policies priced; %s\n\n", options.space.name.c_str(),
                  seconds, static_cast<long>(result.stages_priced), text::provenance_line(result.provenance).c_str());
    }
    if (!result.feasible()) return report_infeasible(result);
    plan::TrainPlan& best = result.ranked.front();
    fill_notes(best, result);
    if (options_.json) {
      print_json(result, seconds, options);
    } else {
      print_text(result, options);
    }
    finish(best);
    return 0;
  }

  static void fill_notes(plan::TrainPlan& best, const plan::SearchResult& result) {
    for (std::size_t i = 0; i < result.provenance.operators.size(); ++i) {
      best.provenance[std::string(cost::provenance_name(static_cast<cost::Provenance>(i)))] =
          result.provenance.operators[i];
    }
    if (result.ranked.size() < 2) return;
    const plan::TrainPlan& next = result.ranked[1];
    best.runner_up = plan::RunnerUp{next.predicted->iteration_s,
                                    fmt::format("accumulation {}, {} stages, {}", next.accumulation, next.stages.size(),
                                                plan::schedule_name(next.schedule))};
  }

  void print_text(const plan::SearchResult& result, const plan::SearchOptions& options) const {
    const plan::TrainPlan& best = result.ranked.front();
    const auto model = plan::cost_model(input_, best);
    std::printf("%s\n%s\n", text::ranking(result.ranked).c_str(), text::stage_table(best, *model).c_str());
    const plan::PlanExplanation why = plan::explain(best, *model);
    if (options_.explain) {
      std::printf("%s", text::explanation(best, why, *model).c_str());
      std::printf("%s", text::knob_table(plan::knob_values(input_, options), best.predicted->iteration_s).c_str());
    } else {
      std::printf("  %s\n", why.binding.c_str());
    }
    if (options_.operators) std::printf("%s", text::operator_table(best, why, *model).c_str());
    if (options_.why_not) {
      const plan::WhyNot answer = plan::why_not(input_, options, best, *options_.why_not);
      std::printf("\n  why not %s: %s\n", options_.why_not->c_str(), answer.answer.c_str());
    }
  }

  void print_json(const plan::SearchResult& result, double seconds, const plan::SearchOptions& options) const {
    base::OrderedJson json;
    json["search_s"] = seconds;
    json["stages_priced"] = result.stages_priced;
    for (const plan::PassTime& pass : result.passes) json["passes_s"][pass.name] = pass.seconds;
    for (const plan::TrainPlan& plan : result.ranked) json["plans"].push_back(plan::plan_to_json(plan));
    const plan::TrainPlan& best = result.ranked.front();
    const auto model = plan::cost_model(input_, best);
    json["binding"] = plan::explain(best, *model).binding;
    if (options_.explain) {
      for (const plan::KnobValue& value : plan::knob_values(input_, options)) {
        base::OrderedJson entry{{"knob", value.knob}};
        if (value.iteration_s < 1e300) entry["iteration_s"] = value.iteration_s;
        json["without"].push_back(entry);
      }
    }
    if (options_.why_not) json["why_not"] = plan::why_not(input_, options, best, *options_.why_not).answer;
    std::printf("%s\n", json.dump().c_str());
  }

  int report_infeasible(const plan::SearchResult& result) const {
    const bool found = !result.least_bad.empty();
    const std::string reason = found ? plan::infeasibility(input_, result.least_bad.front())
                                     : fmt::format("no stage shape divides a batch of {} over {} devices in this space",
                                                   input_.global_batch, input_.cluster.devices());
    if (options_.json) {
      base::OrderedJson json{{"feasible", false}, {"reason", reason}};
      if (found) json["least_bad"] = plan::plan_to_json(result.least_bad.front());
      std::printf("%s\n", json.dump().c_str());
      return 3;
    }
    if (found) {
      const plan::TrainPlan& plan = result.least_bad.front();
      std::printf("%s\n", text::stage_table(plan, *plan::cost_model(input_, plan)).c_str());
    }
    std::fprintf(stderr, "gantry: no plan fits. %s\n", reason.c_str());
    return 3;
  }

  // The files and flags that come out of any answer.
  void finish(const plan::TrainPlan& plan) const {
    if (options_.output) {
      plan::write_plan(plan, *options_.output);
      if (!options_.json) std::printf("\nwrote %s\n", options_.output->c_str());
    }
    if (!options_.export_as) return;
    const plan::Export exported = plan::export_plan(plan, input_.model, input_.cluster, *options_.export_as);
    std::printf("\n%s\n", exported.text.c_str());
    for (const std::string& lost : exported.cannot_express)
      std::fprintf(stderr, "gantry: cannot be expressed: %s\n", lost.c_str());
  }

  const PlanOptions& options_;
  plan::SearchInput input_;
};

}  // namespace

void add_plan(Command& program) {
  Command& verb = program.add_verb("plan", "The fastest training plan that fits a cluster, and why");
  struct State {
    planner::TargetOptions target;
    PlanOptions options;
  };
  auto state = std::make_shared<State>();
  verb.options(state->target);
  verb.options(state->options);
  verb.on_run([state] { return PlanVerb(state->target, state->options).run(); });
}

}  // namespace gantry::cli
