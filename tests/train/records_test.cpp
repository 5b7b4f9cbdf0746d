// Checkpoint folders and metrics.jsonl.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "gantry/base/check.h"
#include "gantry/base/file.h"
#include "gantry/formats/safetensors.h"
#include "gantry/tensor/dtype.h"
#include "gantry/train/checkpoint.h"
#include "gantry/train/metrics.h"
#include "tests/test_support.h"

namespace gantry::train {
namespace {

namespace fs = std::filesystem;

class Records : public ::testing::Test {
 protected:
  std::vector<std::int64_t> steps() const {
    std::vector<std::int64_t> result;
    for (const auto& [step, path] : list_checkpoints(dir_)) result.push_back(step);
    return result;
  }
  void write(std::int64_t step, std::int64_t keep) {
    write_checkpoint(dir_, step, keep, flat_, optimizer_, {{"step", step}}, [&](const fs::path& dir) {
      write_tensors(dir / "model.safetensors", {{"a", flat_.values()}});
    });
  }
  static void write_tensors(const fs::path& file, const std::vector<std::pair<std::string, at::Tensor>>& named) {
    std::vector<formats::TensorToWrite> tensors;
    for (const auto& [name, value] : named) {
      tensors.push_back({.name = name,
                         .dtype = tensor::to_file_dtype(value.scalar_type()),
                         .shape = value.sizes().vec(),
                         .data = {static_cast<const std::byte*>(value.const_data_ptr()), value.nbytes()}});
    }
    formats::write_safetensors(file, tensors, {{"steps", "7"}});
  }

  const tests::TemporaryFolder folder_;
  const fs::path dir_ = folder_.path();
  FlatParameters flat_{{{"a", at::ones({4}), true}}, at::kFloat, at::kFloat};
  FlatAdamw optimizer_{flat_, {}};
};

TEST_F(Records, CheckpointsAreListedByFallingNumberAndOnlyWhenComplete) {
  for (const char* name : {"checkpoint-9", "checkpoint-10", ".checkpoint-11.tmp", "checkpoint-x", "checkpoint-3x"}) {
    fs::create_directories(dir_ / name);
  }
  std::ofstream(dir_ / "checkpoint-99") << "a file";
  EXPECT_EQ(steps(), (std::vector<std::int64_t>{10, 9}));
  EXPECT_TRUE(list_checkpoints(dir_ / "nowhere").empty());
}

TEST_F(Records, OlderCheckpointsGoOnlyAfterANewOneIsComplete) {
  for (const std::int64_t step : {5, 10, 15, 20}) write(step, 2);
  EXPECT_EQ(steps(), (std::vector<std::int64_t>{20, 15}));
  const auto failing = [](const fs::path&) { base::fail("disk full"); };
  EXPECT_THROW(write_checkpoint(dir_, 25, 2, flat_, optimizer_, {}, failing), base::Error);
  EXPECT_EQ(steps(), (std::vector<std::int64_t>{20, 15}));
  EXPECT_FALSE(fs::exists(dir_ / ".checkpoint-25.tmp"));
}

TEST_F(Records, ACheckpointRestoresEveryStateAndTheGenerator) {
  at::manual_seed(5);
  flat_.gradients().fill_(0.25F);
  optimizer_.step(0.1);
  write(1, 1);
  const at::Tensor values = flat_.values().clone(), second = optimizer_.second().clone(), draw = at::rand({8});
  optimizer_.step(0.1);
  const base::Json state = read_checkpoint(dir_ / "checkpoint-1", flat_, optimizer_);
  EXPECT_EQ(state["step"], 1);
  EXPECT_TRUE(flat_.values().equal(values));
  EXPECT_TRUE(optimizer_.second().equal(second));
  EXPECT_EQ(optimizer_.steps_taken(), 1);
  EXPECT_TRUE(at::rand({8}).equal(draw)) << "the generator goes on from the checkpoint";
}

TEST_F(Records, ACheckpointOfAnotherModelIsRefused) {
  write(1, 1);
  const auto refused = [&](NamedParameter parameter, at::ScalarType dtype) {
    FlatParameters other({std::move(parameter)}, dtype, at::kFloat);
    FlatAdamw optimizer(other, {});
    return tests::message_of<base::Error>([&] { read_checkpoint(dir_ / "checkpoint-1", other, optimizer); });
  };
  EXPECT_MENTIONS(refused({"a", at::ones({5}), true}, at::kFloat), "'a' holds 4 values of Float, expected 5 of Float");
  EXPECT_MENTIONS(refused({"b", at::ones({4}), true}, at::kFloat), "'b'");
  EXPECT_MENTIONS(refused({"a", at::ones({4}), true}, at::kBFloat16), "remainder");
  fs::remove(dir_ / "checkpoint-1" / "model.safetensors");
  EXPECT_MENTIONS(refused({"a", at::ones({4}), true}, at::kFloat), "checkpoint-1");
}

TEST_F(Records, ACheckpointWithoutTheTrainedWeightsIsNotKept) {
  write(1, 1);
  const auto incomplete = [](const fs::path& dir) { write_tensors(dir / "model.safetensors", {{"b", at::ones({4})}}); };
  const auto rounded = [](const fs::path& dir) {
    write_tensors(dir / "model.safetensors", {{"a", at::ones({4}, at::kBFloat16)}});
  };
  const auto write_with = [&](const auto& model) {
    return tests::message_of<base::Error>([&] { write_checkpoint(dir_, 2, 1, flat_, optimizer_, {}, model); });
  };
  EXPECT_MENTIONS(write_with(incomplete), "'a'");
  EXPECT_MENTIONS(write_with(rounded), "without the trained values of 'a'");
  EXPECT_EQ(steps(), (std::vector<std::int64_t>{1}));
}

TEST_F(Records, AnOlderCheckpointWithFlatValuesStillResumes) {
  at::manual_seed(5);
  write(1, 1);
  const fs::path dir = dir_ / "checkpoint-1";
  fs::remove(dir / "model.safetensors");
  const auto generator = at::detail::getDefaultCPUGenerator();
  const at::Tensor values = at::arange(4, at::kFloat), first = at::full({4}, 2.0F), second = at::full({4}, 3.0F);
  write_tensors(dir / "optimizer.safetensors",
                {{"first", first}, {"second", second}, {"values", values}, {"generator", generator.get_state()}});
  read_checkpoint(dir, flat_, optimizer_);
  EXPECT_TRUE(flat_.values().equal(values));
  EXPECT_TRUE(optimizer_.first().equal(first) && optimizer_.second().equal(second));
  EXPECT_EQ(optimizer_.steps_taken(), 7);
  write_tensors(
      dir / "optimizer.safetensors",
      {{"first", first}, {"second", second}, {"values", at::ones({3})}, {"generator", generator.get_state()}});
  EXPECT_MENTIONS(tests::message_of<base::Error>([&] { read_checkpoint(dir, flat_, optimizer_); }),
                  "3 values do not fit");
}

TEST_F(Records, ResumingDropsLaterRecordsAndABrokenLine) {
  const fs::path file = dir_ / "metrics.jsonl";
  std::ofstream(file) << "{\"event\":\"start\"}\n{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"st";
  MetricsWriter writer(file, 2);
  writer.write({{"step", 3}, {"loss", std::nan("")}});
  std::ifstream in(file);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  EXPECT_EQ(text, "{\"event\":\"start\"}\n{\"step\":1}\n{\"step\":2}\n{\"step\":3,\"loss\":null}\n");
}

TEST_F(Records, AFreshWriterAppends) {
  const fs::path file = dir_ / "metrics.jsonl";
  MetricsWriter(file, -1).write({{"step", 1}});
  MetricsWriter(file, -1).write({{"step", 2}});
  EXPECT_EQ(base::read_text_file(file), "{\"step\":1}\n{\"step\":2}\n");
  EXPECT_MENTIONS(tests::message_of<base::Error>([] { MetricsWriter("/dev/null/metrics.jsonl", -1).write({}); }),
                  "/dev/null/metrics.jsonl: cannot append");
}

}  // namespace
}  // namespace gantry::train
