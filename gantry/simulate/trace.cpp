// Trace-event JSON, the format of chrome://tracing and Perfetto: complete events ("ph": "X") and names as metadata.
#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <iterator>

#include "gantry/simulate/pipeline.h"

namespace gantry::simulate {
namespace {

/// Whole nanoseconds, so that the end of an event and the start of the next agree after rounding.
std::int64_t nanoseconds(double seconds) { return std::llround(seconds * 1e9); }

void write_microseconds(std::string& out, std::int64_t ns) {
  fmt::format_to(std::back_inserter(out), "{}.{:03}", ns / 1000, ns % 1000);
}

void write_names(std::string& out, int stages) {
  for (int stage = 0; stage < stages; ++stage) {
    fmt::format_to(std::back_inserter(out),
                   R"({{"ph":"M","name":"process_name","pid":{0},"args":{{"name":"stage {0}"}}}},)"
                   "\n"
                   R"({{"ph":"M","name":"process_sort_index","pid":{0},"args":{{"sort_index":{0}}}}},)"
                   "\n",
                   stage);
    for (int c = 0; c < cost::kChannels; ++c) {
      fmt::format_to(std::back_inserter(out),
                     R"({{"ph":"M","name":"thread_name","pid":{},"tid":{},"args":{{"name":"{}"}}}},)"
                     "\n",
                     stage, c, cost::channel_name(static_cast<cost::Channel>(c)));
    }
  }
}

void write_event(std::string& out, const Event& event) {
  const std::int64_t start = nanoseconds(event.start_s);
  fmt::format_to(std::back_inserter(out), R"({{"ph":"X","name":"{}","pid":{},"tid":{},"ts":)", event.name, event.stage,
                 static_cast<int>(event.channel));
  write_microseconds(out, start);
  out += R"(,"dur":)";
  write_microseconds(out, nanoseconds(event.end_s) - start);
  fmt::format_to(std::back_inserter(out), R"(,"args":{{"micro_batch":{},"chunk":{},"layer":{}}}}})", event.micro_batch,
                 event.chunk, event.layer);
}

}  // namespace

std::string trace_json(const Outcome& outcome) {
  std::string out = fmt::format("{{\"displayTimeUnit\":\"ms\",\"otherData\":{{\"iteration_s\":{}}},\"traceEvents\":[\n",
                                outcome.iteration_s);
  write_names(out, static_cast<int>(outcome.busy_s.size()));
  for (const Event& event : outcome.events) {
    write_event(out, event);
    out += ",\n";
  }
  if (out.ends_with(",\n")) out.resize(out.size() - 2);
  return out + "\n]}\n";
}

}  // namespace gantry::simulate
