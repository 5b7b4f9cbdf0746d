#include "gantry/cost/block_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <random>

#include "gantry/base/check.h"
#include "gantry/spec/config.h"
#include "gantry/spec/named_models.h"
#include "gantry/symbolic/program.h"
#include "tests/cost/liveness_reference.h"

namespace gantry::cost {
namespace {

using symbolic::Expr;

const Expr kB = symbolic::sym("b");
const Expr kS = symbolic::sym("s");
const Expr kTp = symbolic::sym("tp");
constexpr double kMb = 1 << 20;

double value_of(const Expr& expr, const spec::Bindings& sizes) {
  const symbolic::Program program = symbolic::compile(std::array{expr});
  std::vector<double> values;
  for (const std::string& symbol : program.symbols()) {
    values.push_back(symbol == "b" ? sizes.batch : symbol == "s" ? sizes.sequence : sizes.tensor_parallel);
  }
  return program.evaluate(values)[0];
}

// Hidden size 8, two heads, MLP 32, vocabulary 100; no dropout.
spec::ModelConfig small_gpt() {
  return spec::config_from_hf_text(R"({"model_type": "gpt2", "vocab_size": 100, "n_embd": 8, "n_layer": 2, "n_head": 2,
    "n_positions": 128, "resid_pdrop": 0, "attn_pdrop": 0})",
                                   "test");
}

// ---- sections worked out by hand: fp32, so a hidden state is u = 32*b*s bytes ----

TEST(BlockMemory, OfABlockWithFlashAttentionIsThatWorkedOutByHand) {
  spec::GraphOptions options;
  options.attention = spec::AttentionMemory::kFlash;
  const auto graph = spec::operator_graph(small_gpt(), options);
  const SectionMemory memory = analyse(graph, graph.layer(1));
  const Expr u = 32 * kB * kS;
  const Expr statistics = 8 * kB * kS;
  const Expr row_sums = 8 * kB * kS / kTp;
  EXPECT_EQ(memory.saved_checkpointed, u);
  EXPECT_EQ(memory.output, u);
  EXPECT_EQ(memory.attention_scores, Expr(0));
  // Input, first norm's result, Q K V and context, row sums, the middle, second norm's result, MLP input and output.
  EXPECT_EQ(memory.saved, 4 * u + 4 * u / kTp + row_sums + 8 * u / kTp + 2 * statistics);
  // All of that, the MLP's result and the output at the last sum.
  EXPECT_EQ(memory.peak_forward, memory.saved + 2 * u);
  // Three candidates. Activation: all but its output (read by the down projection, gone), output gradient (the
  // residual's share of it), both gradients of the wide tensors.
  const Expr activation = memory.saved - 4 * u / kTp + u + 8 * u / kTp;
  // Up projection: the input of the activation is gone too, the result of the norm is about to; its gradient is made.
  const Expr up = memory.saved - 8 * u / kTp + 2 * u + 4 * u / kTp;
  // Down projection: everything is there, the output gradient and one wide gradient.
  const Expr down = memory.saved + u + 4 * u / kTp;
  EXPECT_EQ(memory.peak_backward, max(max(activation, up), down));
}

TEST(BlockMemory, OfStoredAttentionHoldsTwoGradientsOfScores) {
  const auto graph = spec::operator_graph(small_gpt());
  const SectionMemory memory = analyse(graph, graph.layer(0));
  const Expr scores = 8 * kB * kS * kS / kTp;  // two heads
  EXPECT_EQ(memory.attention_scores, scores);
  const auto flash = [] {
    spec::GraphOptions options;
    options.attention = spec::AttentionMemory::kFlash;
    const auto graph = spec::operator_graph(small_gpt(), options);
    return analyse(graph, graph.layer(0));
  }();
  EXPECT_EQ(memory.saved, flash.saved + scores - 8 * kB * kS / kTp);
  // Softmax backward: probabilities, their gradient and that of the scores; beside them the block's input and first
  // norm with its statistics, the residual gradient, Q, K and the gradient of V.
  const Expr u = 32 * kB * kS;
  const Expr softmax = 3 * scores + 3 * u + 8 * kB * kS + 3 * u / kTp;
  EXPECT_EQ(max(memory.peak_backward, softmax), memory.peak_backward);
  const spec::Bindings long_sequence{.batch = 2, .sequence = 500, .tensor_parallel = 2};
  EXPECT_EQ(value_of(memory.peak_backward, long_sequence), value_of(softmax, long_sequence));
}

TEST(BlockMemory, OfHeadAndLossHoldsLogitsAndLogProbabilities) {
  const auto graph = spec::operator_graph(small_gpt());
  const SectionMemory memory = analyse(graph, graph.after_layers());
  const Expr u = 32 * kB * kS;
  const Expr ids = 8 * kB * kS;
  const Expr statistics = 8 * kB * kS;
  const Expr vocabulary = 400 * kB * kS / kTp;
  EXPECT_EQ(memory.saved_checkpointed, u + ids) << "hidden state and labels";
  EXPECT_EQ(memory.saved, 2 * u + ids + statistics + vocabulary);
  EXPECT_EQ(memory.output, Expr(4)) << "the loss";
  EXPECT_EQ(memory.peak_forward, memory.saved + vocabulary + 4);
  // Loss: the same with the logits' gradient; head: without log-probabilities, with its input's gradient.
  EXPECT_EQ(memory.peak_backward, max(memory.saved + vocabulary + 4, memory.saved + u));
  EXPECT_EQ(memory.weight_elements, 800 / kTp + 16) << "the tied table and the final norm";
}

TEST(BlockMemory, ChunkedLossHoldsNoLogits) {
  spec::GraphOptions options;
  options.loss = spec::LossMemory::kChunked;
  options.loss_chunk_tokens = 16;
  const auto graph = spec::operator_graph(small_gpt(), options);
  const SectionMemory memory = analyse(graph, graph.after_layers());
  const Expr u = 32 * kB * kS;
  const Expr kept = 2 * u + (8 + 8 + 4) * kB * kS;  // statistics, labels, log-sum-exp
  const Expr chunk = 16 * 400 / kTp;
  EXPECT_EQ(memory.saved, kept);
  EXPECT_EQ(memory.peak_forward, kept + chunk + 4);
  EXPECT_EQ(memory.peak_backward, kept + chunk + 4 + u);
}

TEST(BlockMemory, OfTheEmbeddingIsIdsAndItsOutput) {
  const auto graph = spec::operator_graph(small_gpt());
  const SectionMemory memory = analyse(graph, graph.before_layers());
  const Expr ids = 8 * kB * kS + 8 * kS;  // tokens and positions
  EXPECT_EQ(memory.saved, ids);
  EXPECT_EQ(memory.saved_checkpointed, ids);
  EXPECT_EQ(memory.peak_forward, ids + 32 * kB * kS);
  EXPECT_EQ(memory.peak_backward, ids + 32 * kB * kS) << "the output's gradient in the output's place";
  EXPECT_EQ(memory.output, 32 * kB * kS);
}

TEST(BlockMemory, RecomputedTensorsAreTransient) {
  spec::GraphOptions options;
  options.attention = spec::AttentionMemory::kFlash;
  const auto stored = spec::operator_graph(small_gpt(), options);
  options.activation = spec::ActivationMemory::kRecompute;
  const auto recomputed = spec::operator_graph(small_gpt(), options);
  const Expr wide = 128 * kB * kS / kTp;
  const SectionMemory a = analyse(stored, stored.layer(0));
  const SectionMemory b = analyse(recomputed, recomputed.layer(0));
  EXPECT_EQ(a.saved - b.saved, wide);
  // The down projection's backward has its input again, for as long as it runs.
  const spec::Bindings sizes{.batch = 3, .sequence = 64};
  EXPECT_EQ(value_of(a.peak_backward, sizes), value_of(b.peak_backward, sizes));
  EXPECT_LT(value_of(b.peak_forward, sizes), value_of(a.peak_forward, sizes));
}

TEST(BlockMemory, OfABlockThatRunsAgainIsThatWorkedOutByHand) {
  spec::GraphOptions options;
  options.attention = spec::AttentionMemory::kRerun;
  options.activation = spec::ActivationMemory::kRerun;
  options.norm = spec::NormMemory::kInPlace;
  const auto graph = spec::operator_graph(small_gpt(), options);
  const SectionMemory memory = analyse(graph, graph.layer(1));
  const Expr u = 32 * kB * kS;
  const Expr statistics = 4 * kB * kS;
  const Expr row_sums = 8 * kB * kS / kTp;
  // Results of both norms and the context. The block's input is read by a norm that does not keep it.
  EXPECT_EQ(memory.saved, 2 * u + u / kTp + 2 * statistics);
  EXPECT_EQ(memory.saved_checkpointed, u);
  const spec::Bindings sizes{.batch = 2, .sequence = 16};
  // Activation: its kept tensors; output gradient; made again and both gradients of 4 u. Or the
  // down projection: input and output of the activation made again, one gradient. Attention: context, and Q, K, V and
  // context made again, gradients of all of them, of the residual's share too.
  const double unit = value_of(u, sizes);
  const double kept = value_of(memory.saved, sizes);
  EXPECT_EQ(value_of(memory.peak_backward, sizes), kept + unit + 12 * unit);
  EXPECT_EQ(value_of(memory.peak_recomputed, sizes), kept + unit + 12 * unit + unit);
  EXPECT_LT(value_of(2 * row_sums, sizes) + kept + unit + 9 * unit, value_of(memory.peak_backward, sizes));
}

TEST(BlockMemory, SequenceParallelismDividesWhatEveryRankHeldInFull) {
  spec::GraphOptions options;
  options.attention = spec::AttentionMemory::kFlash;
  options.sequence_parallel = true;
  const auto graph = spec::operator_graph(small_gpt(), options);
  const SectionMemory memory = analyse(graph, graph.layer(0));
  options.sequence_parallel = false;
  const auto plain_graph = spec::operator_graph(small_gpt(), options);
  const SectionMemory plain = analyse(plain_graph, plain_graph.layer(0));
  const Expr u = 32 * kB * kS;
  EXPECT_EQ(memory.saved_checkpointed, u / kTp);
  EXPECT_EQ(memory.output, u / kTp);
  // With one rank they agree, and all of it is divided.
  EXPECT_EQ(value_of(memory.saved, {.batch = 2, .sequence = 16}), value_of(plain.saved, {.batch = 2, .sequence = 16}));
  EXPECT_EQ(value_of(memory.saved, {.batch = 2, .sequence = 16, .tensor_parallel = 4}),
            value_of(plain.saved, {.batch = 2, .sequence = 16}) / 4);
}

// ---- the released code's figures ----

TEST(BlockMemory, ReproducesThePublishedPeaksOfGpt13B) {
  spec::GraphOptions options;
  options.activation_bytes = options.weight_bytes = options.loss_bytes = 2;
  const auto graph = spec::operator_graph(spec::named_model("gpt-1.3b"), options);
  const spec::Bindings sizes{.batch = 8, .sequence = 2048};
  const auto mb = [&](const Expr& expr) { return value_of(expr, sizes) / kMb; };
  const SectionMemory pre = analyse(graph, graph.before_layers());
  const SectionMemory block = analyse(graph, graph.layer(0));
  const SectionMemory post = analyse(graph, graph.after_layers());
  EXPECT_EQ(mb(block.saved_checkpointed), 64);
  EXPECT_EQ(mb(block.output), 64);
  EXPECT_EQ(mb(block.attention_scores), 1024);
  // Softmax backward: three score matrices and six hidden states (input, norm, residual gradient, Q, K, gradient of V),
  // and the norm's statistics. It is the released code's figure.
  EXPECT_EQ(mb(block.peak_backward), 3 * 1024 + 6 * 64 + 0.125);
  // Two tensors as wide as the vocabulary, the input, labels and statistics; the released code has no final norm, so
  // lacks the 64 MB of its result: 3,208.25.
  EXPECT_NEAR(mb(post.peak_forward), 64 + 2 * 1572 + 0.25 + 64, 1e-5);
  // Golden A: 24 checkpointed layers on two GPUs, ZeRO-1. Weights, gradients and half of the optimiser: 5 * 96.015625
  // MB a block, 5 * 196.5 MB each for embedding and head.
  const double states = 24 * 5 * 96.015625;
  const double edges = 2 * 5 * 196.5;
  EXPECT_EQ(states, 11521.875);
  const double forward = states + edges + mb(pre.saved) + 24 * 64 + mb(post.peak_forward) + 1024;
  const double backward = states + edges + mb(pre.saved) + 23 * 64 + mb(block.peak_backward) + 2 * 64 - 64 + 1024;
  EXPECT_NEAR(forward, 19255.25, 0.005 * 19255.25);
  EXPECT_NEAR(forward - 19255.25, 64 + 0.015625, 1e-4) << "the final norm and the position ids";
  EXPECT_NEAR(backward, 19503.125, 0.02) << "but for the position ids";
}

// ---- against a numeric walk ----

std::vector<spec::ModelConfig> families() {
  return {small_gpt(),
          spec::config_from_hf_text(R"({"model_type": "gpt2", "vocab_size": 96, "n_embd": 16, "n_layer": 2, "n_head": 4,
            "n_positions": 512})",
                                    "test"),
          spec::config_from_hf_text(R"({"model_type": "llama", "vocab_size": 96, "hidden_size": 32,
            "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2,
            "max_position_embeddings": 512})",
                                    "test"),
          spec::config_from_hf_text(R"({"model_type": "bert", "vocab_size": 96, "hidden_size": 32,
            "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128})",
                                    "test")};
}

spec::GraphOptions random_options(std::mt19937& random) {
  const auto pick = [&](int count) { return std::uniform_int_distribution(0, count - 1)(random); };
  spec::GraphOptions options;
  options.activation_bytes = pick(2) == 0 ? 2 : 4;
  options.loss_bytes = pick(2) == 0 ? 2 : 4;
  options.activation = static_cast<spec::ActivationMemory>(pick(5));
  options.norm = static_cast<spec::NormMemory>(pick(4));
  options.attention = static_cast<spec::AttentionMemory>(pick(6));
  options.masks = static_cast<spec::MaskMemory>(pick(4));
  options.loss = static_cast<spec::LossMemory>(pick(2));
  options.loss_chunk_tokens = 8;
  options.sequence_parallel = pick(2) == 0;
  return options;
}

TEST(BlockMemory, EqualsANumericWalkForAnySizes) {
  std::mt19937 random(11);
  const auto pick = [&](int least, int most) { return std::uniform_int_distribution(least, most)(random); };
  const auto models = families();
  for (int trial = 0; trial < 200; ++trial) {
    const spec::ModelConfig& model = models[static_cast<std::size_t>(trial) % models.size()];
    const auto graph = spec::operator_graph(model, random_options(random));
    const std::array ranges = {graph.before_layers(), graph.layer(0),
                               graph.layer(1),        graph.after_layers(),
                               graph.all(),           spec::NodeRange{graph.layer(0).first, graph.layer(1).end}};
    const spec::NodeRange range = ranges[static_cast<std::size_t>(pick(0, 5))];
    const SectionMemory memory = analyse(graph, range);
    for (int i = 0; i < 5; ++i) {
      const spec::Bindings sizes{.batch = static_cast<double>(pick(1, 8)),
                                 .sequence = static_cast<double>(pick(1, 300)),
                                 .context = 1,
                                 .tensor_parallel = static_cast<double>(1 << pick(0, 2))};
      const testing::NumericPeaks expected = testing::numeric_peaks(graph, range, sizes);
      EXPECT_NEAR(value_of(memory.peak_forward, sizes), expected.forward, 1e-9 * expected.forward) << trial;
      EXPECT_NEAR(value_of(memory.peak_backward, sizes), expected.backward, 1e-9 * expected.backward) << trial;
      EXPECT_NEAR(value_of(memory.peak_recomputed, sizes), expected.recomputed, 1e-9 * expected.recomputed) << trial;
    }
  }
}

TEST(BlockMemory, NeedsLessWithEveryMemoryMode) {
  for (const spec::ModelConfig& model : families()) {
    const auto peaks = [&](const spec::GraphOptions& options) {
      const auto graph = spec::operator_graph(model, options);
      const SectionMemory memory = analyse(graph, graph.layer(0));
      const spec::Bindings sizes{.batch = 4, .sequence = 256};
      return std::array{value_of(memory.saved, sizes), value_of(memory.peak_backward, sizes)};
    };
    spec::GraphOptions options;
    const auto stock = peaks(options);
    options.attention = spec::AttentionMemory::kFlash;
    const auto flash = peaks(options);
    EXPECT_LT(flash[0], stock[0]);
    EXPECT_LT(flash[1], stock[1]);
    options.activation_bytes = 2;
    EXPECT_LT(peaks(options)[1], flash[1]);
  }
}

TEST(BlockMemory, RefusesRangesOutsideTheGraph) {
  const auto graph = spec::operator_graph(small_gpt());
  try {
    analyse(graph, {3, 3});
    FAIL() << "nothing was thrown";
  } catch (const base::InputError& error) {
    EXPECT_EQ(std::string(error.what()),
              fmt::format("memory of nodes [3, 3): the graph has {} nodes", graph.nodes().size()));
  }
  EXPECT_THROW(analyse(graph, {0, graph.all().end + 1}), base::InputError);
}

TEST(BlockMemory, TurnsSizesIntoExpressions) {
  const spec::SymbolicSize size =
      spec::per_rank(spec::SymbolicSize(spec::Symbol::kBatch) * spec::Symbol::kSequence * spec::Symbol::kContext * 6) +
      3;
  EXPECT_EQ(to_expr(size), 6 * kB * kS * kS / kTp + 3);
  EXPECT_EQ(to_expr({}), Expr(0));
}

}  // namespace
}  // namespace gantry::cost
