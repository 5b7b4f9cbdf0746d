// SmolLM2-135M-Instruct: logits, greedy text and perplexity against transformers and llama.cpp.
#include "gantry/base/file.h"
#include "gantry/models/generate.h"
#include "gantry/models/load.h"
#include "gantry/models/perplexity.h"
#include "gantry/text/tokenizer.h"
#include "tests/models/golden.h"

namespace gantry::models {
namespace {

using testing::GoldenTensors;

std::shared_ptr<LanguageModel> load_fp32(const std::filesystem::path& gguf) {
  return load_model(gguf, {.dtype = at::kFloat});
}

TEST(SmolLm2, LogitsMatchOnEveryPrompt) {
  GANTRY_GOLDEN_DIR(dir);
  GANTRY_SMOLLM2(gguf);
  const GoldenTensors golden(dir / "smollm2-golden/logits.safetensors");
  const auto model = load_fp32(gguf);
  const at::InferenceMode inference;
  for (int i = 0; i < 6; ++i) {
    const std::string prefix = std::to_string(i) + ".";
    const at::Tensor ids = golden.get(prefix + "input_ids").to(at::kLong).unsqueeze(0);
    const at::Tensor logits = model->logits(model->hidden({.ids = ids}))[0];
    const at::Tensor top = golden.get(prefix + "top_ids").to(at::kLong);
    const double top_error = (logits.gather(1, top) - golden.get(prefix + "top_logits")).abs().max().item<double>();
    EXPECT_LE(top_error, 2e-3) << "prompt " << i;
    EXPECT_TRUE(at::equal(logits.argmax(1), top.select(1, 0))) << "top-1 of prompt " << i;
    const double sum_error = (logits.logsumexp(1) - golden.get(prefix + "logsumexp")).abs().max().item<double>();
    EXPECT_LE(sum_error, 2e-3) << "prompt " << i;
    const double last_error = (logits[-1] - golden.get(prefix + "last_logits")).abs().max().item<double>();
    EXPECT_LE(last_error, 2e-3) << "prompt " << i;
  }
}

TEST(SmolLm2, GreedyTextMatchesOnAllPrompts) {
  GANTRY_GOLDEN_DIR(dir);
  GANTRY_SMOLLM2(gguf);
  const auto model = load_fp32(gguf);
  const auto tokenizer = text::load_tokenizer(gguf);
  int rows = 0;
  for (const auto& row : testing::read_lines(dir / "smollm2-golden/greedy.jsonl")) {
    const auto prompt = tokenizer->encode(row["prompt"].get<std::string>());
    EXPECT_EQ(prompt, row["prompt_ids"].get<std::vector<std::int32_t>>());
    const auto expected = row["output_ids"].get<std::vector<std::int32_t>>();
    const Generation got = generate(*model, *tokenizer, prompt,
                                    {.max_tokens = static_cast<std::int64_t>(expected.size()), .ignore_eos = true});
    EXPECT_EQ(got.ids, expected) << row["prompt"];
    ++rows;
  }
  EXPECT_EQ(rows, 20);
}

TEST(SmolLm2, PerplexityMatchesOnTheFirstWindows) {
  GANTRY_GOLDEN_DIR(dir);
  GANTRY_SMOLLM2(gguf);
  const auto golden = base::read_json_file(dir / "smollm2-golden/perplexity.json");
  const auto windows = golden["nll_sum_per_window"].get<std::vector<double>>();
  const auto model = load_fp32(gguf);
  const auto tokenizer = text::load_tokenizer(gguf);
  const auto ids =
      tokenizer->encode(base::read_text_file(dir / "../text/wikitext2-test.txt"), {.parse_special = false});
  EXPECT_EQ(static_cast<std::int64_t>(ids.size()), golden["tokens_in_file"].get<std::int64_t>());
  constexpr std::int64_t kWindows = 4;  // `gantry eval` in docs/results/foundation.md measures all 32
  const PerplexityResult got = perplexity(*model, ids, {.window = 1024, .max_windows = kWindows});
  ASSERT_EQ(got.window_nll.size(), static_cast<std::size_t>(kWindows));
  for (std::size_t i = 0; i < got.window_nll.size(); ++i) {
    EXPECT_NEAR(got.window_nll[i] / windows[i], 1.0, 1e-4) << "window " << i;
  }
}

}  // namespace
}  // namespace gantry::models
