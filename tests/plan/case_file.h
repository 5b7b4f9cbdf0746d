#pragma once
// Planner cases as text files; tests/plan/cases/README.md describes them.
#include <charconv>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "gantry/base/check.h"
#include "gantry/base/file.h"
#include "gantry/plan/explain.h"
#include "gantry/plan/search.h"
#include "tests/plan/search_support.h"

namespace gantry::plan::testing {

struct Expectation {
  int line = 0;
  std::string key;
  std::vector<std::string> words;
};

struct Case {
  std::string file;
  SearchInput input;
  SearchSpace space;
  std::vector<Expectation> expectations;
  TrainPlan rival;  ///< of `rival` and `stage` lines
};

/// Reads a case; InputError names file and line.
class CaseReader {
 public:
  explicit CaseReader(const std::filesystem::path& path) : name_(path.filename().string()) {
    std::istringstream text(base::read_text_file(path));
    std::string line;
    while (std::getline(text, line)) {
      ++line_;
      std::istringstream words(line.substr(0, line.find('#')));
      std::string key;
      if (!(words >> key)) continue;
      std::vector<std::string> rest;
      for (std::string word; words >> word;) rest.push_back(word);
      GANTRY_CHECK(!rest.empty(), "{}:{}: '{}' needs a value", name_, line_, key);
      read(key, rest);
    }
    line_ = 0;
  }

  Case take() {
    GANTRY_CHECK(!model_.empty() && !cluster_.empty() && batch_ > 0, "{}: model, cluster and batch are needed", name_);
    GANTRY_CHECK(!case_.expectations.empty(), "{}: nothing is expected", name_);
    case_.file = name_;
    cost::CostOptions cost = case_.input.cost;
    case_.input = search_input(model_, cluster_, static_cast<std::int64_t>(batch_), sequence_);
    case_.input.cost = cost;
    if (memory_gb_ > 0) case_.input.cluster.device_memory_bytes = static_cast<std::uint64_t>(memory_gb_ * 1e9);
    if (host_gb_ > 0) case_.input.cluster.host_memory_bytes = static_cast<std::uint64_t>(host_gb_ * 1e9);
    case_.space = restrict_space(named_space(space_), restrictions_);
    finish_rival();
    return std::move(case_);
  }

  double number(const std::string& word) const {
    double value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    GANTRY_CHECK(error == std::errc() && end == word.data() + word.size(), "{}:{}: '{}' is not a number", name_, line_,
                 word);
    return value;
  }

 private:
  void read(const std::string& key, const std::vector<std::string>& words) {
    const std::string& word = words.front();
    if (key == "model") {
      model_ = word;
    } else if (key == "cluster") {
      cluster_ = word;
    } else if (key == "batch") {
      batch_ = number(word);
    } else if (key == "sequence") {
      sequence_ = static_cast<std::int64_t>(number(word));
    } else if (key == "space") {
      space_ = word;
    } else if (key == "restrict") {
      restrictions_ = word;
    } else if (key == "device_memory_gb") {
      memory_gb_ = number(word);
    } else if (key == "host_memory_gb") {
      host_gb_ = number(word);
    } else if (key == "dtype") {
      case_.input.cost.dtype = word;
    } else if (key == "flash_attention") {
      case_.input.cost.flash_attention = on(word);
    } else if (key == "rival") {
      for (const auto& [name, value] : pairs(words)) read_rival(name, value);
    } else if (key == "stage") {
      case_.rival.stages.push_back(read_stage(words));
    } else if (key == "feasible" || key == "iteration_s" || key == "faster_than" || key == "stages" || key == "uses" ||
               key == "avoids") {
      case_.expectations.push_back({line_, key, words});
    } else {
      base::fail_input("{}:{}: unknown key '{}'", name_, line_, key);
    }
  }

  bool on(const std::string& word) const {
    GANTRY_CHECK(word == "on" || word == "off", "{}:{}: expected on or off, found '{}'", name_, line_, word);
    return word == "on";
  }

  std::vector<std::pair<std::string, double>> pairs(const std::vector<std::string>& words) const {
    std::vector<std::pair<std::string, double>> list;
    for (const std::string& word : words) {
      const std::size_t equals = word.find('=');
      GANTRY_CHECK(equals != std::string::npos, "{}:{}: expected name=number, found '{}'", name_, line_, word);
      list.emplace_back(word.substr(0, equals), number(word.substr(equals + 1)));
    }
    return list;
  }

  void read_rival(const std::string& name, double value) {
    GANTRY_CHECK(name == "accumulation", "{}:{}: unknown part '{}' of a rival", name_, line_, name);
    case_.rival.accumulation = static_cast<int>(value);
  }

  Stage read_stage(const std::vector<std::string>& words) const {
    Stage stage;
    cost::Policy& policy = stage.policy;
    for (const auto& [name, value] : pairs(words)) {
      const int whole = static_cast<int>(value);
      if (name == "layers") {
        stage.layers = whole;
      } else if (name == "checkpointed") {
        stage.checkpointed = whole;
      } else if (name == "nodes") {
        stage.mesh.nodes = whole;
      } else if (name == "per_node") {
        stage.mesh.per_node = whole;
      } else if (name == "micro_batch") {
        policy.micro_batch = whole;
      } else if (name == "tp") {
        policy.tensor_parallel = whole;
      } else if (name == "zero") {
        policy.zero = whole;
      } else if (name == "weights") {
        policy.weight_offload = value;
      } else if (name == "gradients") {
        policy.gradient_offload = value;
      } else if (name == "optimizer") {
        policy.optimizer_offload = value;
      } else if (name == "activations") {
        policy.activation_offload = value;
      } else {
        base::fail_input("{}:{}: unknown part '{}' of a stage", name_, line_, name);
      }
    }
    policy.data_parallel = stage.mesh.devices() / policy.tensor_parallel;
    return stage;
  }

  void finish_rival() {
    TrainPlan& rival = case_.rival;
    rival.model = case_.input.model_name;
    rival.sequence = sequence_;
    rival.global_batch = case_.input.global_batch;
    rival.dtype = case_.input.cost.dtype;
    rival.flash_attention = case_.input.cost.flash_attention;
    int first = 0;
    for (Stage& stage : rival.stages) {
      stage.first_layer = first;
      first += stage.layers;
    }
  }

  std::string name_;
  int line_ = 0;
  std::string model_;
  std::string cluster_;
  std::string space_ = "mist";
  std::string restrictions_;
  double batch_ = 0;
  std::int64_t sequence_ = 2048;
  double memory_gb_ = 0;
  double host_gb_ = 0;
  Case case_;
};

}  // namespace gantry::plan::testing
