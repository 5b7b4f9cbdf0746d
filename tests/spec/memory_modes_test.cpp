// Bytes and repeated work of the layers' memory modes, to the byte and to the flop.
#include "gantry/spec/memory_modes.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "gantry/spec/named_models.h"
#include "tests/spec/spec_test_support.h"

namespace gantry::spec {
namespace {

using enum MemoryMode;

ModelConfig bert_large() { return named_model("bert-large"); }

ModelConfig gpt2_medium() {
  return config_from_hf_text(R"({"model_type": "gpt2", "vocab_size": 50257, "n_embd": 1024, "n_layer": 24, "n_head": 16,
    "n_positions": 1024})",
                             "test");
}

ModelConfig without_dropout(ModelConfig config) {
  config.dropout = config.attention_dropout = 0;
  return config;
}

GraphOptions of_width(int bytes) {
  GraphOptions options;
  options.activation_bytes = options.weight_bytes = bytes;
  return options;
}

double saved(const ModelConfig& config, const GraphOptions& options, const Bindings& sizes) {
  return memory_cost(config, options).saved_bytes.evaluate(sizes);
}

// ---- BERT-large and GPT-2 medium with dropout: c of "c * B*S*H bytes a layer", and what is not a multiple of that

struct Row {
  std::string name;
  GraphOptions options;
  double c_bert_fp32, c_bert_bf16, c_gpt2_fp32;
  double token_bytes;  // statistics of the norms, log-sums of attention
};

std::vector<Row> rows() {
  GraphOptions old = {};
  old.attention = AttentionMemory::kStoreScores;
  GraphOptions flash = {};
  flash.attention = AttentionMemory::kFlash;
  // Tempo: masks of dropout and of the activation take a byte.
  GraphOptions tempo = {};
  tempo.attention = AttentionMemory::kInPlace;
  tempo.activation = ActivationMemory::kInPlace;
  tempo.norm = NormMemory::kInPlace;
  GraphOptions flash_tempo = tempo;
  flash_tempo.attention = AttentionMemory::kFlash;
  const auto modes = [](MemoryMode attention, MemoryMode mlp, MemoryMode norm) {
    return with_memory({}, {attention, mlp, norm});
  };
  const double logsums = 16 * 4;
  return {
      {"torch_1_10", old, 170, 90, 274, 16},
      {"torch_1_11", {}, 138, 74, 210, 16},
      {"store", modes(kStore, kStore, kStore), 138, 74, 210, 16},
      {"tempo", tempo, 86, 50, 126, 8},
      {"in_place", modes(kInPlace, kInPlace, kInPlace), 40.5 + 32, 20.5 + 16, 40.5 + 64, 8},
      {"flash", flash, 66, 34, 66, 16 + logsums},
      {"flash_and_tempo", flash_tempo, 46, 26, 46, 8 + logsums},
      {"recompute", modes(kRecompute, kRecompute, kRecompute), 40, 20, 40, 8 + logsums},
      {"defaults", with_memory({}, {}), 40, 20, 40, 8 + logsums},
      {"rerun_of_the_mlp", modes(kRecompute, kRerun, kInPlace), 24, 12, 24, 8 + logsums},
      {"rerun_of_attention", modes(kRerun, kRecompute, kInPlace), 28, 14, 28, 8},
      {"rerun_of_both", modes(kRerun, kRerun, kRerun), 12, 6, 12, 8},
      {"int8", modes(kInt8, kInt8, kInt8), 12 * 33.0 / 32, 12 * 33.0 / 32, 12 * 33.0 / 32, 8},
      // The norm keeps its output in full, the linears behind it in int8.
      {"int8_but_norms", modes(kInt8, kInt8, kInPlace), 8 + 10 * 33.0 / 32, 4 + 10 * 33.0 / 32, 8 + 10 * 33.0 / 32, 8}};
}

class KeptBytes : public ::testing::TestWithParam<Row> {};

TEST_P(KeptBytes, EqualTheTable) {
  const Row& row = GetParam();
  const auto check = [&](const ModelConfig& config, int width, double sequence, double c) {
    GraphOptions options = row.options;
    options.activation_bytes = width;
    const double tokens = 3 * sequence;
    EXPECT_EQ(saved(config, options, {.batch = 3, .sequence = sequence}), tokens * (1024 * c + row.token_bytes))
        << config.model_type << " of width " << width;
  };
  check(bert_large(), 4, 512, row.c_bert_fp32);
  check(bert_large(), 2, 512, row.c_bert_bf16);
  check(gpt2_medium(), 4, 1024, row.c_gpt2_fp32);
}

INSTANTIATE_TEST_SUITE_P(Modes, KeptBytes, ::testing::ValuesIn(rows()), [](const auto& row) { return row.param.name; });

TEST(KeptBytes, OfNumbersInLastBitsAreNoneInFp32) {
  const auto token_bytes = [](const ModelConfig& config, int width, const LayerMemory& memory, double c) {
    GraphOptions options = of_width(width);
    options.numbers_in_last_bits = true;
    return saved(config, with_memory(options, memory), {.batch = 3, .sequence = 512}) / (3 * 512) -
           static_cast<double>(config.hidden_size) * c;
  };
  const ModelConfig bert = bert_large();  // 16 heads of 64
  EXPECT_EQ(token_bytes(bert, 4, {}, 40), 0);
  EXPECT_EQ(token_bytes(bert, 4, {kRecompute, kRerun, kInPlace}, 24), 0);
  EXPECT_EQ(token_bytes(bert, 4, {kRerun, kRerun, kRerun}, 12), 0);
  EXPECT_EQ(token_bytes(bert, 2, {}, 20), 8 + 64) << "bf16 has no bits to spare";
  EXPECT_EQ(token_bytes(bert, 4, {kInt8, kInt8, kInt8}, 12 * 33.0 / 32), 8) << "int8 keeps no output";
  EXPECT_EQ(token_bytes(without_dropout(bert), 4, {kStore, kStore, kStore}, 64 + 4 * 8), 16) << "nor does store";
  ModelConfig narrow = bert;
  narrow.num_heads = narrow.num_kv_heads = 64;
  narrow.head_dim = 16;
  EXPECT_EQ(token_bytes(narrow, 4, {}, 40), 64 * 4) << "heads of 16 elements carry no log-sum";
}

TEST(KeptBytes, WithoutDropoutLackMasksAndDroppedProbabilities) {
  const Bindings sizes{.batch = 2, .sequence = 512};
  const auto c = [&](const GraphOptions& options, double token_bytes) {
    return (saved(without_dropout(bert_large()), options, sizes) / (2 * 512) - token_bytes) / 1024;
  };
  EXPECT_EQ(c({}, 16), 64 + 4 * 8);
  EXPECT_EQ(c(with_memory({}, {kInPlace, kInPlace, kInPlace}), 8), 40.5 + 4 * 8);
  EXPECT_EQ(c(with_memory({}, {}), 8 + 64), 40);
  EXPECT_EQ(c(with_memory({}, {kRerun, kRerun, kRerun}), 8), 12);
}

TEST(KeptBytes, OfHiddenDropoutFollowTheNormsMode) {
  const Bindings sizes{.batch = 1, .sequence = 512};
  const double stored = saved(bert_large(), with_memory({}, {kRecompute, kRecompute, kStore}), sizes);
  const double replayed =
      saved(without_dropout(bert_large()), with_memory({}, {kRecompute, kRecompute, kStore}), sizes);
  EXPECT_EQ(stored - replayed, 2 * 512 * 1024) << "two masks of a byte an element";
  GraphOptions cpu;
  cpu.masks = MaskMemory::kActivation;
  EXPECT_EQ(saved(bert_large(), with_memory(cpu, {kStore, kInPlace, kInPlace}), sizes) -
                saved(without_dropout(bert_large()), with_memory(cpu, {kStore, kInPlace, kInPlace}), sizes),
            2.0 * 4 * 16 * 512 * 512)
      << "mask and dropped probabilities of attention; norms replay theirs";
}

// ---- Llama: grouped queries, gated units, no dropout

struct LlamaSizes {
  double hidden = 576, kv = 192, inner = 1536, heads = 9;
};

struct LlamaRow {
  const char* name;
  LayerMemory memory;
  /// Bytes a token, of activations of that width at S = 128.
  double (*token_bytes)(const LlamaSizes& n, double width);
};

constexpr LlamaRow kLlamaRows[] = {
    // Inputs and 1/deviation of two norms, their outputs, rotated Q and K, V, probabilities, output; gate, its
    // activation, up, product.
    {"store",
     {kStore, kStore, kStore},
     [](const LlamaSizes& n, double w) {
       return w * (4 * n.hidden + n.hidden + 2 * n.kv + n.heads * 128 + n.hidden + 4 * n.inner) + 8;
     }},
    {"in_place",
     {kInPlace, kInPlace, kInPlace},
     [](const LlamaSizes& n, double w) {
       return w * (2 * n.hidden + n.hidden + 2 * n.kv + n.heads * 128 + n.hidden + 2 * n.inner) + 8;
     }},
    {"recompute",
     {kRecompute, kRecompute, kRecompute},
     [](const LlamaSizes& n, double w) {
       return w * (2 * n.hidden + n.hidden + 2 * n.kv + n.hidden + 2 * n.inner) + 8 + 4 * n.heads;
     }},
    {"rerun_of_the_mlp",
     {kRecompute, kRerun, kInPlace},
     [](const LlamaSizes& n, double w) {
       return w * (2 * n.hidden + n.hidden + 2 * n.kv + n.hidden) + 8 + 4 * n.heads;
     }},
    {"rerun_of_both",
     {kRerun, kRerun, kRerun},
     [](const LlamaSizes& n, double w) { return w * (2 * n.hidden + n.hidden) + 8; }},
    {"int8",
     {kInt8, kInt8, kInt8},
     [](const LlamaSizes& n, double) {
       const double attention = n.hidden + n.hidden + 2 * n.kv + n.hidden;
       return (2 * n.hidden + attention + n.hidden + 2 * n.inner) * 33 / 32 + 8;
     }},
};

class LlamaKeptBytes : public ::testing::TestWithParam<LlamaRow> {};

TEST_P(LlamaKeptBytes, EqualTheSumOfTheTensors) {
  const ModelConfig config = named_model("smollm2-135m");
  for (const int width : {4, 2}) {
    const GraphOptions options = with_memory(of_width(width), GetParam().memory);
    EXPECT_EQ(saved(config, options, {.batch = 2, .sequence = 128}),
              2 * 128 * GetParam().token_bytes(LlamaSizes{}, width));
    // Three ranks: what lies outside the parallel regions is there in full.
    const double three = saved(config, options, {.batch = 2, .sequence = 128, .tensor_parallel = 3});
    LlamaSizes rank{.hidden = 0, .kv = 64, .inner = 512, .heads = 3};
    const double full = GetParam().token_bytes(LlamaSizes{.kv = 0, .inner = 0, .heads = 0}, width);
    const double split = GetParam().token_bytes(rank, width) - 8;
    // Of the hidden-sized tensors Q and the attention's output are split.
    const double q_and_output = GetParam().memory.attention == kRerun ? 1 : 2;
    const double element = GetParam().memory.attention == kInt8 ? 33.0 / 32 : width;
    EXPECT_NEAR(three, 2 * 128 * (full + split - q_and_output * element * (576 - 192)), 1e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, LlamaKeptBytes, ::testing::ValuesIn(kLlamaRows),
                         [](const auto& row) { return std::string(row.param.name); });

// ---- work done again

/// Of one layer's products forward and backward without attention's own: 72 B S H^2.
SymbolicSize layer_products(const ModelConfig& config) {
  const SymbolicSize h = config.hidden_size;
  return SymbolicSize(Symbol::kBatch) * Symbol::kSequence * h * h * 72;
}

double share(const ModelConfig& config, const SymbolicSize& flops, double sequence) {
  const Bindings sizes{.batch = 2, .sequence = sequence};
  return flops.evaluate(sizes) / layer_products(config).evaluate(sizes);
}

TEST(ExtraWork, OfRerunsIsTheShareOfTheirProducts) {
  const ModelConfig bert = bert_large();
  const auto extra = [&](MemoryMode attention, MemoryMode mlp) {
    return share(bert, memory_cost(bert, {}, {attention, mlp, kInPlace}).extra_matrix_flops, 512);
  };
  const double flash = 512.0 / (18 * 1024);
  EXPECT_DOUBLE_EQ(extra(kRecompute, kRerun), 1.0 / 9) << "11 %";
  EXPECT_DOUBLE_EQ(extra(kRerun, kRecompute), 1.0 / 12 + flash) << "8.3 %, and flash attention forward";
  EXPECT_DOUBLE_EQ(extra(kRerun, kRerun), 1.0 / 9 + 1.0 / 12 + flash);
  EXPECT_DOUBLE_EQ(extra(kInt8, kInt8), flash);
  EXPECT_EQ(extra(kRecompute, kRecompute), 0);
  EXPECT_EQ(extra(kInPlace, kInPlace), 0);
  EXPECT_EQ(extra(kStore, kStore), 0);
}

TEST(ExtraWork, OfCausalAttentionIsHalf) {
  const ModelConfig gpt2 = gpt2_medium();
  const SymbolicSize both = memory_cost(gpt2, {}, {kRerun, kRecompute, kInPlace}).extra_matrix_flops;
  EXPECT_DOUBLE_EQ(share(gpt2, both, 1024), 1.0 / 12 + 1025.0 / (36 * 1024));
}

TEST(ExtraWork, OfAGatedUnitIsGateAndUp) {
  const ModelConfig llama = testing::llama();  // 64 wide, 96 inside, 2 of 8 heads for keys and values
  const SymbolicSize tokens = SymbolicSize(Symbol::kBatch) * Symbol::kSequence;
  const MemoryCost mlp = memory_cost(llama, {}, {kRecompute, kRerun, kInPlace});
  EXPECT_EQ(mlp.extra_matrix_flops, per_rank(tokens * (2 * 64 * 2 * 96)));
  EXPECT_EQ(mlp.extra_vector_flops, per_rank(tokens * 96 * 6)) << "the gated activation";
  const MemoryCost attention = memory_cost(llama, {}, {kRerun, kStore, kInPlace});
  const SymbolicSize scores = per_rank(tokens * (SymbolicSize(Symbol::kSequence) + 1) * (8.0 / 2));
  EXPECT_EQ(attention.extra_matrix_flops, per_rank(tokens * (2 * 64 * (64 + 32))) + scores * 8 * 4);
  EXPECT_EQ(attention.extra_vector_flops, per_rank(tokens * (64 + 16) * 3) + scores * 6) << "rotation, softmax";
}

TEST(ExtraWork, OfRecomputationIsTheActivationAlone) {
  const ModelConfig bert = testing::bert();  // 128 wide, 512 inside
  const MemoryCost cost = memory_cost(bert, {}, {});
  const SymbolicSize inner = per_rank(SymbolicSize(Symbol::kBatch) * Symbol::kSequence * 512);
  EXPECT_TRUE(cost.extra_matrix_flops.is_zero());
  EXPECT_EQ(cost.extra_vector_flops, inner * 8);
  EXPECT_EQ(cost.extra_bytes, inner * 8) << "one tensor read, one written";
}

TEST(ExtraWork, MovesWhatTheForwardMoved) {
  const ModelConfig gpt2 = testing::gpt2();
  const MemoryCost cost = memory_cost(gpt2, {}, {kRecompute, kRerun, kInPlace});
  const OperatorGraph graph = operator_graph(gpt2, with_memory({}, {}));
  SymbolicSize forward;
  for (const GraphNode& node : graph.nodes()) {
    const bool repeated = node.name == "layers.1.mlp.up" || node.name == "layers.1.mlp.activation";
    if (repeated) forward += node.bytes_read + node.bytes_written;
  }
  EXPECT_EQ(cost.extra_bytes, forward);
}

TEST(ExtraWork, OfInt8IsPackingAndUnpacking) {
  const ModelConfig gpt2 = testing::gpt2();  // 64 wide, 256 inside
  const MemoryCost norm = memory_cost(gpt2, {}, {kRecompute, kInPlace, kInt8});
  const SymbolicSize packed = SymbolicSize(Symbol::kBatch) * Symbol::kSequence * (2 * 64);
  EXPECT_EQ(norm.extra_vector_flops, packed * 5);
  EXPECT_EQ(norm.extra_bytes, packed * 12);
  EXPECT_TRUE(norm.extra_matrix_flops.is_zero());
}

TEST(ExtraWork, IsPartOfTheBackward) {
  for (const ModelConfig& config : {testing::llama(), testing::gpt2(), testing::bert()}) {
    const OperatorGraph plain = operator_graph(config, with_memory({}, {kRecompute, kInPlace, kInPlace}));
    const OperatorGraph rerun = operator_graph(config, with_memory({}, {kRerun, kRerun, kInPlace}));
    const MemoryCost before = memory_cost(config, {}, {kRecompute, kInPlace, kInPlace});
    const MemoryCost after = memory_cost(config, {}, {kRerun, kRerun, kInPlace});
    EXPECT_EQ(
        rerun.backward_flops(rerun.layer(1)) - plain.backward_flops(plain.layer(1)),
        after.extra_matrix_flops + after.extra_vector_flops - before.extra_matrix_flops - before.extra_vector_flops);
    EXPECT_EQ(rerun.forward_flops(rerun.all()), plain.forward_flops(plain.all()));
  }
}

TEST(Rerun, GathersASequenceParallelInputOnceMore) {
  GraphOptions options;
  options.sequence_parallel = true;
  const auto gathered = [&](const LayerMemory& memory, std::string_view name) {
    const OperatorGraph graph = operator_graph(testing::gpt2(), with_memory(options, memory));
    for (const GraphNode& node : graph.nodes()) {
      if (node.name == name) return node.backward_all_gather_bytes;
    }
    return SymbolicSize();
  };
  for (const char* name : {"layers.0.mlp.up", "layers.0.attention.qkv"}) {
    EXPECT_FALSE(gathered({}, name).is_zero());
    EXPECT_EQ(gathered({kRerun, kRerun, kInPlace}, name), gathered({}, name) * 2);
  }
}

TEST(Rerun, HoldsWhatItMakesAgainAsWorkspace) {
  const OperatorGraph graph = operator_graph(testing::gpt2(), with_memory({}, {kRerun, kRerun, kInPlace}));
  const SymbolicSize tokens = SymbolicSize(Symbol::kBatch) * Symbol::kSequence;
  const SymbolicSize inner = per_rank(tokens * 256 * 4);
  for (const GraphNode& node : graph.nodes()) {
    if (node.layer != 0) continue;
    SymbolicSize expected;
    if (node.name.ends_with("mlp.down")) expected = inner * 2;
    if (node.name.ends_with("mlp.activation")) expected = inner;
    // Q, K, V and the output of 64, log-sums and row sums of 4 heads.
    if (node.kind == OpKind::kAttention) expected = per_rank(tokens * (4 * 64 * 4 + 2 * 4 * 4));
    EXPECT_EQ(node.backward_workspace_bytes, expected) << node.name;
  }
}

// ---- names

TEST(MemoryModes, AreNamedAndParsed) {
  for (const MemoryMode mode : kMemoryModes) EXPECT_EQ(parse_memory_mode(memory_mode_name(mode)), mode);
  EXPECT_EQ(testing::input_error([] { parse_memory_mode("in_place"); }),
            "memory mode 'in_place' is none of store, in-place, recompute, rerun and int8");
}

}  // namespace
}  // namespace gantry::spec
