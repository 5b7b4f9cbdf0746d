#pragma once
// Finds stop texts in a stream and holds back what could still become one. Torch-free.
#include <string>
#include <string_view>
#include <vector>

namespace gantry::models {

class StopTextFilter {
 public:
  /// Empty stop texts are ignored.
  explicit StopTextFilter(std::vector<std::string> stops);

  /// Appends a piece and returns the text that is now safe to show.
  std::string push(std::string_view piece);
  /// What was held back, once the stream ends without a stop.
  std::string flush();
  /// True once a stop text has appeared; nothing from it on is ever returned.
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string pending_;
  bool stopped_ = false;
};

}  // namespace gantry::models
