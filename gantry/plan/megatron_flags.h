#pragma once
// A Megatron-LM command line as flags with values.
#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gantry::plan::internal {

/// Splits as a shell does: blanks, quotes, backslashes, continued lines. A flag has its value behind a blank or '='; of
/// a flag given twice the last holds. InputError names a flag whose value is missing or bad, and an open quote.
class MegatronFlags {
 public:
  explicit MegatronFlags(std::string_view text);

  bool has(std::string_view name) const;  ///< a switch, "sequence-parallel"
  std::optional<std::string> text(std::string_view name) const;
  /// From `least` to 10^6, the global batch to 10^9.
  std::optional<std::int64_t> integer(std::string_view name, std::int64_t least) const;
  std::optional<double> number(std::string_view name, double least, double most) const;
  /// The index of the value among `names`.
  std::optional<int> choice(std::string_view name, std::initializer_list<std::string_view> names) const;

  /// Flags (with values) and words that have no bearing on a plan.
  const std::vector<std::string>& irrelevant() const { return irrelevant_; }

 private:
  void add_flag(const std::vector<std::string>& words, std::size_t* next);

  std::map<std::string, std::string, std::less<>> values_;
  std::vector<std::string> irrelevant_;
};

/// "Et*3|(tt|)*2tL" as layers of each stage; model chunks are dealt round-robin to the stages, and `chunks` becomes
/// their number a stage. InputError where it does not describe `layers` layers over `stages` stages in a way that a
/// plan can hold: every chunk of a stage has the same number of layers.
std::vector<int> layers_of_layout(std::string_view layout, int stages, std::int64_t layers, int* chunks);

}  // namespace gantry::plan::internal
