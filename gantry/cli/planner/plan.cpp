// gantry plan: the fastest training plan that fits, and why.
#include <cstdio>

#include "gantry/base/check.h"
#include "gantry/base/interrupt.h"
#include "gantry/base/progress.h"
#include "gantry/base/timer.h"
#include "gantry/cli/planner/inputs.h"
#include "gantry/cli/planner/plan_options.h"
#include "gantry/cli/planner/plan_text.h"
#include "gantry/cli/verbs.h"
#include "gantry/plan/export.h"
#include "gantry/plan/plan_file.h"
#include "gantry/simulate/pipeline.h"

namespace gantry::cli {
namespace {

namespace text = planner;

double simulated_s(const plan::TrainPlan& plan, const cost::CostModel& model) {
  return simulate::iteration_s(plan, model);
}

class PlanVerb {
 public:
  PlanVerb(const planner::TargetOptions& target, const planner::PlanOptions& options)
      : target_(target), options_(options), out_(options.export_as && !options.json ? stderr : stdout) {}

  int run() {
    planner::check_options(options_);
    if (!options_.compare.empty()) return compare();
    if (options_.evaluate) {
      plan::TrainPlan plan = plan::read_plan(*options_.evaluate);
      input_ = planner::input_of_plan(plan, target_);
      return report_given(priced(std::move(plan), *options_.evaluate));
    }
    input_ = planner::search_input(target_);
    return options_.from_megatron ? from_megatron() : search();
  }

 private:
  template <class... Values>
  void print(const char* format, Values... values) const {
    if (!options_.json) std::fprintf(out_, format, values...);
  }

  /// The plan with today's predictions.
  plan::TrainPlan priced(plan::TrainPlan plan, const std::string& source) const {
    planner::require_sound(plan, input_, source);
    const auto model = plan::cost_model(input_, plan);
    plan::evaluate(plan, *model);
    if (options_.simulate) {
      const double seconds = simulated_s(plan, *model);
      plan.predicted = {seconds, static_cast<double>(plan.global_batch * plan.sequence) / seconds};
    }
    return plan;
  }

  int compare() {
    std::vector<plan::TrainPlan> plans;
    std::vector<plan::PlanExplanation> why;
    for (const std::string& path : options_.compare) {
      plan::TrainPlan plan = plan::read_plan(path);
      if (plans.empty()) input_ = planner::input_of_plan(plan, target_);
      input_.sequence = plan.sequence;
      plans.push_back(priced(std::move(plan), path));
      why.push_back(plan::explain(plans.back(), *plan::cost_model(input_, plans.back())));
    }
    if (options_.json) {
      base::OrderedJson json;
      for (const plan::TrainPlan& plan : plans) json["plans"].push_back(plan::plan_to_json(plan));
      std::printf("%s\n", json.dump().c_str());
      return 0;
    }
    print("%s\n\n  A = %s\n  B = %s\n\n%s", text::headline(input_).c_str(), options_.compare[0].c_str(),
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
    return report_given(priced(std::move(plan), "--from-megatron"));
  }

  int report_given(const plan::TrainPlan& plan) {
    const auto model = plan::cost_model(input_, plan);
    const bool fits = plan::fits(plan, *model);
    const plan::PlanExplanation why = plan::explain(plan, *model);
    base::OrderedJson json{{"fits", fits}, {"plan", plan::plan_to_json(plan)}};
    const std::string verdict = fits ? "it fits" : "it does not fit. " + plan::infeasibility(input_, plan);
    if (!fits) json["reason"] = verdict;
    print("%s\n\n%s\n%s\n%s\n%s", text::headline(input_).c_str(), text::ranking({plan}).c_str(),
          text::stage_table(plan, *model).c_str(), text::explanation(plan, why, *model).c_str(),
          text::wrapped("verdict: " + verdict).c_str());
    print_operators(plan, why, *model);
    finish(plan, std::move(json));
    return fits ? 0 : 3;
  }

  void print_operators(const plan::TrainPlan& plan, const plan::PlanExplanation& why,
                       const cost::CostModel& model) const {
    if (options_.operators) print("\n%s", text::operator_table(plan, why, model).c_str());
  }

  static void stop_if_interrupted() {
    if (base::interrupted()) throw base::Interrupted("stopped; nothing was written");
  }

  plan::SearchOptions search_options() const {
    plan::SearchOptions options;
    options.space = plan::named_space(options_.space);
    options.best = static_cast<int>(options_.best);
    return options;
  }

  plan::SearchResult run_search() const {
    base::Progress progress("searching", 100, "%");
    plan::SearchOptions watched = search_options();
    watched.progress = [&](double share) {
      stop_if_interrupted();
      progress.update(static_cast<std::uint64_t>(share * 100));
    };
    return plan::search(input_, watched, options_.simulate ? plan::Arbiter(simulated_s) : plan::Arbiter());
  }

  int search() {
    const base::Timer timer;
    plan::SearchResult result = run_search();
    const double seconds = timer.seconds();
    print("%s\n%s\n", text::headline(input_).c_str(),
          text::search_line(result, options_.space, seconds, options_.simulate).c_str());
    if (!result.feasible()) return report_infeasible(result);
    plan::TrainPlan& best = result.ranked.front();
    fill_notes(best, result);
    const auto model = plan::cost_model(input_, best);
    const plan::PlanExplanation why = plan::explain(best, *model);
    print("%s\n%s\n", text::ranking(result.ranked).c_str(), text::stage_table(best, *model).c_str());
    print("%s", (options_.explain ? text::explanation(best, why, *model) : text::wrapped(why.binding)).c_str());
    print_operators(best, why, *model);
    base::OrderedJson json = search_json(result, seconds);
    json["binding"] = why.binding;
    answer(result, json);
    finish(best, std::move(json));
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

  static base::OrderedJson search_json(const plan::SearchResult& result, double seconds) {
    base::OrderedJson json{{"feasible", true}, {"search_s", seconds}, {"stages_priced", result.stages_priced}};
    for (const plan::PassTime& pass : result.passes) json["passes_s"][pass.name] = pass.seconds;
    for (const plan::TrainPlan& plan : result.ranked) json["plans"].push_back(plan::plan_to_json(plan));
    return json;
  }

  // The questions that take more searches. Those are by the closed form, so it is what they are compared with.
  void answer(const plan::SearchResult& result, base::OrderedJson& json) const {
    if (!options_.explain && !options_.why_not) return;
    plan::TrainPlan best = text::by_closed_form(input_, result.ranked);
    plan::SearchOptions options = search_options();
    base::Progress progress("explaining", 100, "%");
    options.progress = [&](double share) {
      stop_if_interrupted();
      progress.update(static_cast<std::uint64_t>(share * 100));
    };
    if (options_.explain) {
      const std::vector<plan::KnobValue> values = plan::knob_values(input_, options, &best);
      progress.update(100);
      progress.finish();
      print("\n%s", text::knob_table(values, best.predicted->iteration_s).c_str());
      for (const plan::KnobValue& value : values) {
        base::OrderedJson entry{{"knob", value.knob}};
        if (value.iteration_s < 1e300) entry["iteration_s"] = value.iteration_s;
        json["without"].push_back(entry);
      }
    }
    if (options_.why_not) {
      const plan::WhyNot why = plan::why_not(input_, options, best, *options_.why_not);
      progress.finish();
      print("\n%s", text::wrapped(fmt::format("why not {}: {}", *options_.why_not, why.answer)).c_str());
      json["why_not"] = why.answer;
    }
  }

  int report_infeasible(const plan::SearchResult& result) const {
    const bool found = !result.least_bad.empty();
    const std::string reason = found ? plan::infeasibility(input_, result.least_bad.front()) : indivisible();
    if (options_.json) {
      base::OrderedJson json{{"feasible", false}, {"reason", reason}};
      if (found) json["least_bad"] = plan::plan_to_json(result.least_bad.front());
      std::printf("%s\n", json.dump().c_str());
      return 3;
    }
    if (found) {
      const plan::TrainPlan& plan = result.least_bad.front();
      print("%s\n", text::stage_table(plan, *plan::cost_model(input_, plan)).c_str());
    }
    std::fflush(out_);
    std::fprintf(stderr, "gantry: %s%s\n", found ? "no plan fits. " : "", reason.c_str());
    return 3;
  }

  std::string indivisible() const {
    return fmt::format(
        "A batch of {} cannot be divided over {} devices in the {} space: micro-batch x data-parallel degree x "
        "accumulation must make the batch, stages (at most the {} layers) x data- x tensor-parallel degree the "
        "devices. "
        "Take a batch with more divisors, or fewer devices.",
        input_.global_batch, input_.cluster.devices(), options_.space, input_.model.num_layers);
  }

  // The files and flags that come out of any answer.
  void finish(const plan::TrainPlan& plan, base::OrderedJson json) const {
    if (options_.output) {
      plan::write_plan(plan, *options_.output);
      print("\nwrote %s\n", options_.output->c_str());
    }
    if (options_.export_as) {
      const plan::Export exported = plan::export_plan(plan, input_.model, input_.cluster, *options_.export_as);
      json["export"] = {{"text", exported.text}, {"cannot_express", exported.cannot_express}};
      if (!options_.json) std::printf("%s\n", exported.text.c_str());
      for (const std::string& lost : exported.cannot_express)
        std::fprintf(stderr, "gantry: cannot be expressed: %s\n", lost.c_str());
    }
    if (options_.json) std::printf("%s\n", json.dump().c_str());
  }

  const planner::TargetOptions& target_;
  const planner::PlanOptions& options_;
  std::FILE* out_;
  plan::SearchInput input_;
};

}  // namespace

void add_plan(Command& program) {
  Command& verb = program.add_verb("plan", "The fastest training plan that fits a cluster, and why");
  struct State {
    planner::TargetOptions target;
    planner::PlanOptions options;
  };
  auto state = std::make_shared<State>();
  verb.options(state->target);
  verb.options(state->options);
  verb.on_run([state] { return PlanVerb(state->target, state->options).run(); });
}

}  // namespace gantry::cli
