#include "gantry/models/stop_text.h"

#include <algorithm>
#include <utility>

namespace gantry::models {

StopTextFilter::StopTextFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::string StopTextFilter::push(std::string_view piece) {
  if (stopped_) return {};
  pending_ += piece;
  std::size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, pending_.find(stop));
  if (first != std::string::npos) {
    stopped_ = true;
    std::string safe = pending_.substr(0, first);
    pending_.clear();
    return safe;
  }
  // The longest tail that begins a stop text stays back.
  std::size_t keep = 0;
  for (const std::string& stop : stops_) {
    for (std::size_t length = std::min(stop.size() - 1, pending_.size()); length > keep; --length) {
      if (pending_.ends_with(std::string_view(stop).substr(0, length))) keep = length;
    }
  }
  std::string safe = pending_.substr(0, pending_.size() - keep);
  pending_.erase(0, safe.size());
  return safe;
}

std::string StopTextFilter::flush() { return std::exchange(pending_, {}); }

}  // namespace gantry::models
