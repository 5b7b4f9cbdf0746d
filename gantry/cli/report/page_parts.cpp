#include "gantry/cli/report/page_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "gantry/base/progress.h"
#include "gantry/cli/report/format.h"
#include "gantry/cli/report/summary.h"
#include "gantry/cli/report/svg_plot.h"

namespace gantry::cli::report {
namespace {

using base::Json;
constexpr std::size_t kMostEvals = 200;  // rows of a table; the newest stay

using Rows = std::vector<std::pair<std::string, std::string>>;

/// A metadata value as people would write it; what is not text keeps its JSON form.
std::string plain_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_null()) return "–";
  if (value.is_number_float()) return fmt::format("{:g}", value.get<double>());
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// A member of a record that may lack it or be no object at all; null then.
const Json& member(const Json& object, const char* key) {
  static const Json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

double number_or_nan(const Json& value) { return value.is_number() ? value.get<double>() : NAN; }

void add(Rows& rows, const char* name, const std::string& text) {
  if (!text.empty()) rows.emplace_back(name, text);
}

std::string machine_text(const Json& machine) {
  std::string text;
  const auto append = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  if (!member(machine, "cpu").is_null()) append(plain_text(member(machine, "cpu")));
  if (const double threads = number_or_nan(member(machine, "threads")); std::isfinite(threads)) {
    append(fmt::format("{:.0f} {}", threads, threads == 1 ? "thread" : "threads"));
  }
  if (const double bytes = number_or_nan(member(machine, "memory_bytes")); std::isfinite(bytes)) {
    append(format_memory(bytes));
  }
  return text;
}

/// "2026-01-02 03:04:05 UTC" for the ISO form that runs record, anything else as it is.
std::string time_text(const Json& time) {
  if (time.is_null()) return "";
  std::string text = plain_text(time);
  if (text.size() != 20 || text[10] != 'T' || text[19] != 'Z') return text;
  return text.substr(0, 10) + " " + text.substr(11, 8) + " UTC";
}

/// The last part of the model's path.
std::string model_text(const RunRecords& run) {
  const Json& model = member(run.start, "model");
  if (model.is_null()) return "–";
  const std::string text = plain_text(model);
  const auto end = text.find_last_not_of('/');
  if (end == std::string::npos) return text;
  const auto slash = text.rfind('/', end);
  return text.substr(slash == std::string::npos ? 0 : slash + 1,
                     end - (slash == std::string::npos ? 0 : slash + 1) + 1);
}

std::string state_text(const RunRecords& run) {
  if (!run.end_reason) return run.steps.empty() ? "no step yet" : "not ended";
  return *run.end_reason;
}

std::string duration_text(double seconds) {
  return seconds > 0 && std::isfinite(seconds) ? base::format_duration(std::min(seconds, 1e8)) : "–";
}

std::string perplexity_text(const Summary& summary) {
  if (!summary.last_eval) return "–";
  const std::string last = format_number(summary.last_eval->perplexity);
  if (summary.first_eval->step == summary.last_eval->step) return last;
  return fmt::format("{} → {}", format_number(summary.first_eval->perplexity), last);
}

std::string tile(std::string_view label, const std::string& value, const std::string& detail) {
  return fmt::format(R"(<div class="tile"><dt>{}</dt><dd>{}</dd><dd class="detail">{}</dd></div>)", escape_html(label),
                     escape_html(value), escape_html(detail));
}

std::string change_text(double before, double after) {
  if (!(before > 0) || !std::isfinite(after)) return "";
  const double percent = 100 * (after - before) / before;
  const int decimals = percent < -99 ? 2 : 1;
  return fmt::format("{}{:.{}f} %", percent < 0 ? "−" : "+", std::abs(percent), decimals);
}

std::string step_text(std::int64_t step) { return group_digits(static_cast<double>(step), 0); }

std::string perplexity_detail(const Summary& summary) {
  if (!summary.last_eval) return "no evaluation recorded";
  const auto& first = *summary.first_eval;
  const auto& last = *summary.last_eval;
  if (first.step == last.step) return fmt::format("at step {}", step_text(last.step));
  return fmt::format("{} from step {} to {}", change_text(first.perplexity, last.perplexity), step_text(first.step),
                     step_text(last.step));
}

void flatten(const Json& value, const std::string& prefix, std::map<std::string, std::string>& out) {
  if (!value.is_object()) {
    out[prefix] = plain_text(value);
    return;
  }
  for (const auto& [key, part] : value.items()) flatten(part, prefix.empty() ? key : prefix + "." + key, out);
}

std::string swatch(std::size_t run) { return svg_legend_sample({static_cast<int>(run), Line::kSolid, Marker::kNone}); }

std::string scrolling_table(const std::string& rows, const char* classes = "") {
  return fmt::format(R"(<div class="scroll"><table class="{}">{}</table></div>)", classes, rows);
}

std::string number_cell(const std::string& text) { return fmt::format(R"(<td class="n">{}</td>)", escape_html(text)); }

std::string eval_rows(const RunRecords& run) {
  std::string rows;
  const std::size_t skipped = run.evals.size() > kMostEvals ? run.evals.size() - kMostEvals : 0;
  for (std::size_t row = skipped; row < run.evals.size(); ++row) {
    const auto& record = run.evals[row];
    rows += "<tr>" + number_cell(step_text(record.step)) + "<td>" + escape_html(record.split) + "</td>" +
            number_cell(format_number(record.loss)) + number_cell(format_number(record.perplexity)) +
            number_cell(format_count(record.tokens)) + "</tr>";
  }
  if (rows.empty()) return "";
  return R"(<tr><th class="n">step</th><th>split</th><th class="n">loss</th><th class="n">perplexity</th>)"
         R"(<th class="n">tokens</th></tr>)" +
         rows;
}

/// One row a step and split, one column a run.
std::string eval_comparison_rows(std::span<const RunRecords> runs) {
  std::map<std::pair<std::string, std::int64_t>, std::vector<std::string>> table;
  for (std::size_t index = 0; index < runs.size(); ++index) {
    for (const auto& record : runs[index].evals) {
      auto& row = table.try_emplace({record.split, record.step}, runs.size(), "–").first->second;
      row[index] = format_number(record.perplexity);
    }
  }
  if (table.empty()) return "";
  std::string out = R"(<tr><th>split</th><th class="n">step</th>)";
  for (std::size_t index = 0; index < runs.size(); ++index) {
    out += fmt::format(R"(<th class="n name">{}{}</th>)", swatch(index), escape_html(runs[index].name));
  }
  out += "</tr>";
  auto row = table.begin();
  if (table.size() > kMostEvals) std::advance(row, table.size() - kMostEvals);
  for (; row != table.end(); ++row) {
    out += "<tr><td>" + escape_html(row->first.first) + "</td>" + number_cell(step_text(row->first.second));
    for (const auto& text : row->second) out += number_cell(text);
    out += "</tr>";
  }
  return out;
}

}  // namespace

std::string page_title(std::span<const RunRecords> runs) {
  return runs.size() == 1 ? runs[0].name : fmt::format("{} runs compared", runs.size());
}

std::string facts_html(const RunRecords& run) {
  const double parameters = number_or_nan(member(run.start, "parameters"));
  Rows rows;
  add(rows, "Model", model_text(run));
  add(rows, "Parameters", std::isfinite(parameters) ? format_count(parameters) : "");
  if (const double trained = number_or_nan(member(run.start, "trained_parameters")); trained < parameters) {
    add(rows, "Trained", format_count(trained));
  }
  add(rows, "Machine", machine_text(member(run.start, "machine")));
  add(rows, "Started", time_text(member(run.start, "time")));
  add(rows, "State", state_text(run));
  add(rows, "Gantry", member(run.start, "version").is_null() ? "" : plain_text(member(run.start, "version")));
  if (const Json& model = member(run.start, "model"); !model.is_null() && plain_text(model) != model_text(run)) {
    add(rows, "Loaded from", plain_text(model));
  }
  add(rows, "Record", run.file.string());
  std::string out = R"(<dl class="facts">)";
  for (const auto& [name, text] : rows)
    out += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>", name, escape_html(text));
  return out + "</dl>\n";
}

std::string tiles_html(const RunRecords& run) {
  const Summary summary = summarise(run);
  const std::string steps =
      summary.loss_steps <= 1 ? "last step" : fmt::format("mean of the last {} steps", summary.loss_steps);
  const std::string change = change_text(summary.first_loss, summary.final_loss);
  std::string out = R"(<dl class="tiles">)";
  out += tile("Training loss", format_number(summary.final_loss), change.empty() ? steps : change + ", " + steps);
  const std::string split = summary.split.empty() ? "Perplexity" : "Perplexity, " + summary.split;
  out += tile(split, perplexity_text(summary), perplexity_detail(summary));
  out += tile("Tokens per second", format_number(summary.tokens_per_s), "median of the steps");
  out += tile("Peak memory", format_memory(summary.peak_memory_bytes), "of the process");
  out += tile("Duration", duration_text(summary.duration_s),
              fmt::format("{} steps, {} tokens", group_digits(static_cast<double>(run.steps.size()), 0),
                          format_count(summary.tokens)));
  return out + "</dl>\n";
}

std::string comparison_html(std::span<const RunRecords> runs) {
  std::string rows = R"(<tr><th>run</th><th>model</th><th class="n">last step</th><th class="n">training loss</th>)"
                     R"(<th class="n">perplexity</th><th class="n">tokens/s</th><th class="n">peak memory</th>)"
                     R"(<th class="n">duration</th><th>state</th></tr>)";
  for (std::size_t index = 0; index < runs.size(); ++index) {
    const Summary summary = summarise(runs[index]);
    rows += fmt::format(R"(<tr><td class="name">{}{}</td><td class="model">{}</td>)", swatch(index),
                        escape_html(runs[index].name), escape_html(model_text(runs[index])));
    for (const std::string& text : {step_text(summary.last_step), format_number(summary.final_loss),
                                    perplexity_text(summary), format_number(summary.tokens_per_s),
                                    format_memory(summary.peak_memory_bytes), duration_text(summary.duration_s)}) {
      rows += number_cell(text);
    }
    rows += fmt::format("<td class=\"state\">{}</td></tr>", escape_html(state_text(runs[index])));
  }
  return scrolling_table(rows) + "\n";
}

std::string evals_html(std::span<const RunRecords> runs) {
  const std::string rows = runs.size() == 1 ? eval_rows(runs[0]) : eval_comparison_rows(runs);
  if (rows.empty()) return "";
  const char* title = runs.size() == 1 ? "Evaluation" : "Perplexity";
  return fmt::format("<section><h2>{}</h2>{}</section>\n", title, scrolling_table(rows, "evals"));
}

std::string options_html(std::span<const RunRecords> runs) {
  std::map<std::string, std::vector<std::string>> options;
  for (std::size_t index = 0; index < runs.size(); ++index) {
    std::map<std::string, std::string> flat;
    if (const Json& own = member(runs[index].start, "options"); !own.is_null()) flatten(own, "", flat);
    for (const auto& [key, text] : flat) {
      auto& row = options.try_emplace(key, runs.size(), "–").first->second;
      row[index] = text;
    }
  }
  if (options.empty()) return "";
  std::string differing, equal;
  for (const auto& [key, texts] : options) {
    const bool differs = std::adjacent_find(texts.begin(), texts.end(), std::not_equal_to<>()) != texts.end();
    std::string row = fmt::format(R"(<tr{}><th>{}</th>)", differs ? R"( class="differs")" : "", escape_html(key));
    for (const auto& text : texts) row += fmt::format("<td>{}</td>", escape_html(text));
    (differs ? differing : equal) += row + "</tr>";
  }
  std::string head;
  if (runs.size() > 1) {
    head = "<tr><th>option</th>";
    for (const auto& run : runs) head += fmt::format("<th>{}</th>", escape_html(run.name));
    head += "</tr>";
  }
  return "<section><h2>Options</h2>" +
         scrolling_table(head + differing + equal, runs.size() == 1 ? "options wrap" : "wrap") + "</section>\n";
}

std::string notices_html(std::span<const RunRecords> runs) {
  std::string items;
  for (const auto& run : runs) {
    for (const auto& notice : run.notices) {
      items += fmt::format("<li>{}{}</li>",
                           runs.size() == 1 ? "" : "<b>" + escape_html(run.name) + "</b>: ", escape_html(notice));
    }
  }
  return items.empty() ? "" : fmt::format("<aside class=\"notices\"><ul>{}</ul></aside>\n", items);
}

}  // namespace gantry::cli::report
