// Bytes that one layer among its like keeps for backward; Gantry's are allocations alive after the forward pass,
// PyTorch's come from its saved-tensor hooks (bench/baselines/layers_saved_bytes.py).
#include <fmt/format.h>

#include <map>

#include "gantry/cli/layers_bench/rows.h"
#include "gantry/cli/layers_bench/shapes.h"
#include "gantry/models/layer_stack.h"

namespace gantry::cli::layers_bench {
namespace {

using layers::LayerMemory;
using layers::MemoryMode;

constexpr std::int64_t kSavedBatch = 2;

struct Setting {
  std::string family;
  std::int64_t length = 512;
  double dropout = 0.1;
  bool bf16 = false;

  auto operator<=>(const Setting&) const = default;
  std::string text() const {
    return fmt::format("{}, S={}, {}, dropout {:g}", family, length, bf16 ? "bf16" : "fp32", dropout);
  }
};

struct Row {
  std::string name;
  Setting setting;
  LayerMemory memory;
  double bar = 0;        ///< most of BSH that the row may keep; 0: none
  std::string baseline;  ///< arm that it is compared with
};

std::vector<Row> all_rows() {
  const Setting bert{"bert"}, bert_bf16{"bert", 512, 0.1, true}, bert_plain{"bert", 512, 0.0};
  const Setting gpt2{"gpt2", 1024}, gpt2_bf16{"gpt2", 1024, 0.1, true};
  const Setting llama{"llama", 1024, 0.0}, llama_bf16{"llama", 1024, 0.0, true};
  const LayerMemory floor = uniform(MemoryMode::kRecompute), tempo = uniform(MemoryMode::kInPlace);
  const LayerMemory flash{.attention = MemoryMode::kRecompute, .mlp = MemoryMode::kInPlace};
  return {{"saved_bytes_bert_tempo", bert, tempo, 86, "eager"},
          {"saved_bytes_bert_flash", bert, flash, 46, "eager"},
          {"saved_bytes_bert_floor", bert, floor, 41, "eager"},
          {"saved_bytes_bert_rerun_mlp", bert, arm_memory("rerun-mlp"), 24, "checkpoint-attention"},
          {"saved_bytes_bert_rerun_attention", bert, arm_memory("rerun-attention"), 24, "checkpoint-attention"},
          {"saved_bytes_bert_rerun", bert, uniform(MemoryMode::kRerun), 24, "checkpoint-attention"},
          {"saved_bytes_bert_int8", bert, uniform(MemoryMode::kInt8), 0, "checkpoint-attention"},
          {"saved_bytes_bert_no_dropout", bert_plain, floor, 0, "sdpa"},
          {"saved_bytes_bert_bf16", bert_bf16, floor, 21, "eager"},
          {"saved_bytes_gpt2", gpt2, floor, 46, "transformers-eager"},
          {"saved_bytes_gpt2_bf16", gpt2_bf16, floor, 0, "transformers-eager"},
          {"saved_bytes_llama", llama, floor, 50, "transformers-sdpa"},
          {"saved_bytes_llama_bf16", llama_bf16, floor, 0, "transformers-sdpa"}};
}

models::SavedLayerBytes counter_of(const Setting& setting) {
  return {layer_config(setting.family, 1, setting.dropout), kSavedBatch, setting.length,
          setting.bf16 ? at::kBFloat16 : at::kFloat};
}

// In units of B S H.
double kept(models::SavedLayerBytes& counter, const Setting& setting, const LayerMemory& memory) {
  const std::int64_t unit = kSavedBatch * setting.length * layer_config(setting.family, 1, setting.dropout).hidden_size;
  return static_cast<double>(counter.of(memory)) / static_cast<double>(unit);
}

class SavedRows {
 public:
  explicit SavedRows(const Bench& bench) : bench_(bench) {}

  void run() {
    for (const Row& row : all_rows()) {
      if (bench_.wants(row.name)) print(row);
    }
    if (!asked_.empty() && missing_.empty()) print_table();
  }

 private:
  void print(const Row& row) {
    models::SavedLayerBytes counter = counter_of(row.setting);
    const double c = kept(counter, row.setting, row.memory);
    if (row.bar > 0) bench_.out.row({row.name, c, "BSH", "bar", row.bar, c / row.bar, 1});
    const std::string name = "PyTorch " + row.baseline;
    const base::Json& arms = arms_of(row.setting);
    if (!missing_.empty()) return bench_.out.missing(row.name, name, missing_);
    const double theirs = arms[row.baseline].get<double>();
    bench_.out.row({row.name, c, "BSH", name, theirs, c / theirs, 1});
  }

  // One process a setting; it ends before the next one starts.
  const base::Json& arms_of(const Setting& setting) {
    auto [place, added] = asked_.try_emplace(setting);
    if (!added) return place->second;
    std::vector<std::string> arms{"eager",
                                  "eager-byte-masks",
                                  "sdpa",
                                  "transformers-eager",
                                  "transformers-sdpa",
                                  "checkpoint-attention",
                                  "checkpoint-layer"};
    if (setting == Setting{"bert"} && !bench_.options.no_compile) {
      for (const char* arm : {"compile", "compile-0.5", "compile-0.2"}) arms.emplace_back(arm);
    }
    const auto server = python_server(bench_, "layers_saved_bytes.py",
                                      {{"family", setting.family},
                                       {"sequence_length", setting.length},
                                       {"dropout", setting.dropout},
                                       {"dtype", setting.bf16 ? "bf16-autocast" : "fp32"},
                                       {"arms", arms}});
    missing_ = server->missing();
    if (missing_.empty()) place->second = server->run();
    return place->second;
  }

  void print_table() {
    planner::BenchTable table{"saved_bytes",
                              "Bytes that a layer keeps for its backward pass, in units of B S H",
                              {"layer", "who", "how", "c"},
                              {},
                              {},
                              {"bf16: Gantry's weights are bf16; PyTorch computes under autocast, whose copies of the "
                               "weights are not counted."}};
    const auto add = [&](const Setting& setting, const std::string& who, const std::string& how, double c) {
      table.cells.push_back({setting.text(), who, how, fmt::format("{:.2f}", c)});
      table.json.push_back({{"layer", setting.text()}, {"who", who}, {"how", how}, {"c", c}});
    };
    for (const auto& [setting, arms] : asked_) {
      models::SavedLayerBytes counter = counter_of(setting);
      for (const char* arm : {"store", "in-place", "recompute", "rerun-mlp", "rerun-attention", "rerun", "int8"}) {
        add(setting, "Gantry", arm, kept(counter, setting, arm_memory(arm)));
      }
      for (const auto& [arm, c] : arms.items()) add(setting, "PyTorch", arm, c.get<double>());
    }
    bench_.out.table(table);
  }

  const Bench& bench_;
  std::map<Setting, base::Json> asked_;
  std::string missing_;
};

}  // namespace

void saved_rows(const Bench& bench) { SavedRows(bench).run(); }

}  // namespace gantry::cli::layers_bench
