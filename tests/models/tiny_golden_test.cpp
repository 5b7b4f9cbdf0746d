// The tiny random models of ../shared/data/llm: hidden states, logits, loss and every gradient against transformers.
#include "gantry/models/generate.h"
#include "gantry/models/load.h"
#include "gantry/train/flat_parameters.h"
#include "tests/models/golden.h"

namespace gantry::models {
namespace {

using testing::GoldenTensors;
using testing::relative_error;

constexpr double kTolerance = 1e-5;

struct GoldenCase {
  const char* folder;
  friend void PrintTo(const GoldenCase& c, std::ostream* os) { *os << c.folder; }
};

class TinyModel : public ::testing::TestWithParam<GoldenCase> {};

// A copy whose parameters may be written and differentiated.
std::shared_ptr<LanguageModel> load_trainable(const std::filesystem::path& folder) {
  auto model = load_model(folder);
  for (auto& parameter : model->parameters()) {
    parameter.set_data(parameter.detach().clone());
    parameter.set_requires_grad(true);
  }
  return model;
}

ModelInputs inputs_of(const GoldenTensors& golden) {
  ModelInputs inputs{.ids = golden.get("input_ids")};
  if (golden.has("attention_mask")) inputs.key_mask = golden.get("attention_mask").to(at::kBool);
  if (golden.has("token_type_ids")) inputs.token_types = golden.get("token_type_ids");
  return inputs;
}

// Causal goldens shift inside the loss: position t predicts labels[t + 1].
at::Tensor shifted_labels(const GoldenTensors& golden, bool causal) {
  const at::Tensor labels = golden.get("labels");
  if (!causal) return labels;
  return at::cat({labels.narrow(1, 1, labels.size(1) - 1), at::full({labels.size(0), 1}, -100, labels.options())}, 1);
}

at::Tensor counted_rows(const at::Tensor& x, const ModelInputs& inputs) {
  const at::Tensor flat = x.reshape({-1, x.size(-1)});
  return inputs.key_mask.defined() ? flat.index({inputs.key_mask.reshape({-1})}) : flat;
}

TEST_P(TinyModel, HiddenStatesAndLogitsMatch) {
  GANTRY_GOLDEN_DIR(dir);
  const GoldenTensors golden(dir / GetParam().folder / "golden.safetensors");
  const auto model = load_model(dir / GetParam().folder);
  const at::NoGradGuard no_grad;
  ModelInputs inputs = inputs_of(golden);
  std::vector<at::Tensor> trace;
  inputs.trace = &trace;
  const at::Tensor logits = model->logits(model->hidden(inputs));
  EXPECT_LE(relative_error(counted_rows(logits, inputs), counted_rows(golden.get("logits"), inputs)), kTolerance);
  for (std::size_t i = 0; i < trace.size(); ++i) {
    const at::Tensor expected = golden.get("hidden." + std::to_string(i));
    EXPECT_LE(relative_error(counted_rows(trace[i], inputs), counted_rows(expected, inputs)), kTolerance)
        << "hidden state " << i;
  }
}

TEST_P(TinyModel, LossAndEveryGradientMatch) {
  GANTRY_GOLDEN_DIR(dir);
  const GoldenTensors golden(dir / GetParam().folder / "golden.safetensors");
  const auto model = load_trainable(dir / GetParam().folder);
  const at::Tensor labels = shifted_labels(golden, model->config().is_decoder());
  const at::Tensor loss = model->loss(inputs_of(golden), labels);
  EXPECT_NEAR(loss.item<double>(), golden.get("loss").item<double>(), 1e-5);
  loss.backward();
  for (const auto& item : model->named_parameters()) {
    const at::Tensor expected = golden.get("grad." + item.key());
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    if (item.key().ends_with("key.bias")) {  // zero in exact arithmetic
      EXPECT_LE(item.value().grad().abs().max().item<double>(), 1e-7) << item.key();
      continue;
    }
    EXPECT_LE(relative_error(item.value().grad(), expected), kTolerance) << item.key();
  }
}

TEST_P(TinyModel, FlatBuffersGiveTheSameGradients) {
  GANTRY_GOLDEN_DIR(dir);
  const GoldenTensors golden(dir / GetParam().folder / "golden.safetensors");
  const auto model = load_model(dir / GetParam().folder);
  std::vector<train::NamedParameter> parameters;
  for (const auto& item : model->named_parameters()) parameters.push_back({item.key(), item.value(), true});
  train::FlatParameters flat(parameters, at::kFloat, at::kFloat);
  flat.gradients().fill_(std::numeric_limits<float>::quiet_NaN());  // whatever was there must not matter
  const at::Tensor labels = shifted_labels(golden, model->config().is_decoder());
  flat.sinks().begin_step();
  {
    const tensor::GradientSinks::Guard guard(flat.sinks());
    model->loss(inputs_of(golden), labels).backward();
  }
  flat.sinks().finish_step();
  for (const auto& item : flat.parameters()) {
    EXPECT_FALSE(item.parameter.grad().defined()) << item.name << " bypassed its slot";
    if (item.name.ends_with("key.bias")) continue;
    const at::Tensor got = flat.sinks().find(item.parameter)->gradient;
    EXPECT_LE(relative_error(got, golden.get("grad." + item.name)), kTolerance) << item.name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, TinyModel,
                         ::testing::Values(GoldenCase{"tiny-llama"}, GoldenCase{"tiny-llama-tied"},
                                           GoldenCase{"tiny-gpt2"}, GoldenCase{"tiny-bert"}),
                         [](const auto& info) {
                           std::string name = info.param.folder;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(TinyGreedy, TokensMatch) {
  GANTRY_GOLDEN_DIR(dir);
  for (const char* folder : {"tiny-llama", "tiny-llama-tied", "tiny-gpt2"}) {
    const auto model = load_model(dir / folder);
    const base::Json golden = base::read_json_file(dir / folder / "golden.json");
    for (const auto& row : golden["greedy"]) {
      const auto prompt = row["prompt"].get<std::vector<std::int32_t>>();
      const auto expected = row["output"].get<std::vector<std::int32_t>>();
      const Generation got =
          generate_ids(*model, prompt, {.max_tokens = static_cast<std::int64_t>(expected.size()), .ignore_eos = true});
      EXPECT_EQ(got.ids, expected) << folder << ", prompt of " << prompt.size();
    }
  }
}

}  // namespace
}  // namespace gantry::models
