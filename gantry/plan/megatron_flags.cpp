#include "gantry/plan/megatron_flags.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <utility>

#include "gantry/base/check.h"
#include "gantry/plan/types.h"

namespace gantry::plan::internal {
namespace {

constexpr std::string_view kSwitches[] = {"sequence-parallel",
                                          "use-distributed-optimizer",
                                          "use-megatron-fsdp",
                                          "use-torch-fsdp2",
                                          "bf16",
                                          "fp16",
                                          "use-flash-attn",
                                          "optimizer-cpu-offload",
                                          "cross-entropy-loss-fusion",
                                          "recompute-activations"};

constexpr std::string_view kValued[] = {"tensor-model-parallel-size",
                                        "pipeline-model-parallel-size",
                                        "pipeline-model-parallel-layout",
                                        "decoder-first-pipeline-num-layers",
                                        "decoder-last-pipeline-num-layers",
                                        "num-virtual-stages-per-pipeline-rank",
                                        "num-layers-per-virtual-pipeline-stage",
                                        "context-parallel-size",
                                        "expert-model-parallel-size",
                                        "micro-batch-size",
                                        "global-batch-size",
                                        "num-layers",
                                        "hidden-size",
                                        "ffn-hidden-size",
                                        "num-attention-heads",
                                        "seq-length",
                                        "recompute-granularity",
                                        "recompute-method",
                                        "recompute-num-layers",
                                        "data-parallel-sharding-strategy",
                                        "optimizer-offload-fraction",
                                        "cpu-offloading-num-layers",
                                        "attention-backend"};

bool is_switch(std::string_view name) { return std::ranges::find(kSwitches, name) != std::end(kSwitches); }
bool is_valued(std::string_view name) { return std::ranges::find(kValued, name) != std::end(kValued); }
bool is_flag(std::string_view word) { return word.size() > 2 && word.starts_with("--"); }

// Words of a shell's command line; `\` before a line's end joins lines.
std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  bool open = false;  // a word has begun, perhaps an empty one
  char quote = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\\' && quote != '\'' && i + 1 < text.size()) {
      const char next = text[++i];
      if (next == '\r' || next == '\n') continue;
      word += next;
      open = true;
    } else if (quote != 0) {
      if (c == quote) {
        quote = 0;
      } else {
        word += c;
      }
    } else if (c == '"' || c == '\'') {
      quote = c;
      open = true;
    } else if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      if (open) words.push_back(std::exchange(word, {}));
      open = false;
    } else {
      word += c;
      open = true;
    }
  }
  GANTRY_CHECK(quote == 0, "Megatron flags: the quote {} is never closed", quote);
  if (open) words.push_back(word);
  return words;
}

}  // namespace

MegatronFlags::MegatronFlags(std::string_view text) {
  const std::vector<std::string> words = split_words(text);
  for (std::size_t i = 0; i < words.size();) {
    if (is_flag(words[i])) {
      add_flag(words, &i);
    } else {
      irrelevant_.push_back(words[i++]);
    }
  }
}

void MegatronFlags::add_flag(const std::vector<std::string>& words, std::size_t* next) {
  const std::string& word = words[(*next)++];
  const std::size_t equals = word.find('=');
  const std::string name = word.substr(2, equals == std::string::npos ? equals : equals - 2);
  if (is_switch(name)) {
    GANTRY_CHECK(equals == std::string::npos, "--{} takes no value, found '{}'", name, word.substr(equals + 1));
    values_[name] = "";
  } else if (is_valued(name) && equals != std::string::npos) {
    values_[name] = word.substr(equals + 1);
  } else if (is_valued(name)) {
    GANTRY_CHECK(*next < words.size() && !is_flag(words[*next]), "--{} needs a value, found {}", name,
                 *next < words.size() ? words[*next] : "the end");
    values_[name] = words[(*next)++];
  } else {
    std::string all = word;
    while (*next < words.size() && !is_flag(words[*next])) all += " " + words[(*next)++];
    irrelevant_.push_back(all);
  }
}

bool MegatronFlags::has(std::string_view name) const { return values_.contains(name); }

std::optional<std::string> MegatronFlags::text(std::string_view name) const {
  const auto found = values_.find(name);
  if (found == values_.end()) return std::nullopt;
  return found->second;
}

std::optional<std::int64_t> MegatronFlags::integer(std::string_view name, std::int64_t least) const {
  const auto value = text(name);
  if (!value) return std::nullopt;
  const std::int64_t most = name == "global-batch-size" || name == "seq-length" ? 1'000'000'000 : 1'000'000;
  std::int64_t parsed = 0;
  const char* end = value->data() + value->size();
  const auto [stop, error] = std::from_chars(value->data(), end, parsed);
  GANTRY_CHECK(error == std::errc() && stop == end && parsed >= least && parsed <= most,
               "--{} must be a whole number, {} to {}, found '{}'", name, least, most, *value);
  return parsed;
}

std::optional<double> MegatronFlags::number(std::string_view name, double least, double most) const {
  const auto value = text(name);
  if (!value) return std::nullopt;
  double parsed = 0;
  const char* end = value->data() + value->size();
  const auto [stop, error] = std::from_chars(value->data(), end, parsed);
  GANTRY_CHECK(error == std::errc() && stop == end && parsed >= least && parsed <= most,
               "--{} must be a number, {} to {}, found '{}'", name, least, most, *value);
  return parsed;
}

std::optional<int> MegatronFlags::choice(std::string_view name, std::initializer_list<std::string_view> names) const {
  const auto value = text(name);
  if (!value) return std::nullopt;
  const auto found = std::find(names.begin(), names.end(), *value);
  GANTRY_CHECK(found != names.end(), "--{} must be one of {}, found '{}'", name, fmt::join(names, ", "), *value);
  return static_cast<int>(found - names.begin());
}

}  // namespace gantry::plan::internal
