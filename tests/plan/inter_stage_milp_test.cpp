// inter_stage against a MILP solver (CBC) on instances too large for brute force.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>

#include "gantry/base/check.h"
#include "gantry/base/file.h"
#include "tests/plan/inter_stage_test_support.h"

namespace gantry::plan {
namespace {

using base::CounterRandom;
using testing::random_tables;
using testing::TableShape;

bool has_cbc() { return std::system("command -v cbc >/dev/null 2>&1") == 0; }

// The MILP of Mist (EuroSys '25, section 5.3) for a fixed number of stages: a binary for every stage, layer count, mesh
// and point. The devices of all stages add up as the layers do.
class Milp {
 public:
  Milp(const StageTables& tables, int devices, const Objective& objective, int stages) {
    std::string one, layers, units, steady, delta, earlier, goal, names;
    for (int i = 0; i < stages; ++i) {
      const Role role = i == 0 ? Role::kFirst : i == stages - 1 ? Role::kLast : Role::kMiddle;
      one += fmt::format("one{}:", i);
      steady += fmt::format("steady{}: Tm", i);
      delta += fmt::format("delta{}: Dm{}", i, earlier);
      testing::for_each_list(tables, [&](Role list_role, int after, int own, int mesh) {
        if (list_role != role || after != stages - 1 - i) return;
        for (const StagePoint& point : tables.at(role, after, own, mesh)) {
          const std::string name = fmt::format("z{}", choices_.size());
          choices_.push_back({own, mesh, point});
          stages_.push_back(i);
          names += name + "\n";
          one += fmt::format(" + {}\n", name);
          layers += fmt::format(" + {} {}\n", own, name);
          units += fmt::format(" + {} {}\n", tables.mesh_devices()[mesh], name);
          steady += fmt::format(" - {:.15g} {}\n", point.t_s, name);
          delta += fmt::format(" - {:.15g} {}\n", point.d_s, name);
          earlier += fmt::format(" + {:.15g} {}\n", objective.fill * point.t_s, name);
        }
      });
      one += " = 1\n";
      steady += " >= 0\n";
      delta += " >= 0\n";
    }
    text_ = fmt::format(
        "Minimize\n cost: {:.15g} Tm + Dm{}\nSubject To\n{}layers:{} = {}\ndevices:{} = {}\n{}{}Binaries\n{}End\n",
        objective.steady, earlier, one, layers, tables.layers(), units, devices, steady, delta, names);
    stages_of_plan_ = stages;
  }

  struct Solution {
    std::vector<StageChoice> plan;  // empty: infeasible
    bool optimal = true;            // else the best found in the time given
  };
  Solution solve(const std::filesystem::path& folder) const {
    base::AtomicFile file(folder / "instance.lp");
    file.write(text_);
    file.commit();
    const std::string command = fmt::format(
        "cd '{}' && cbc instance.lp ratio 0 allow 0 increment 1e-9 timeMode elapsed sec 20 solve solu out.txt "
        ">log.txt 2>&1",
        folder.string());
    if (std::system(command.c_str()) != 0) ADD_FAILURE() << "cbc failed: " << base::read_text_file(folder / "log.txt");
    std::istringstream lines(base::read_text_file(folder / "out.txt"));
    std::string line;
    std::getline(lines, line);
    if (line.starts_with("Infeasible") || line.starts_with("Integer infeasible")) return {};
    Solution solution{{}, line.starts_with("Optimal")};
    EXPECT_TRUE(solution.optimal || line.starts_with("Stopped on time")) << line;
    solution.plan.resize(stages_of_plan_);
    int chosen = 0;
    while (std::getline(lines, line)) {
      std::istringstream fields(line);
      std::string index, name;
      double value = 0;
      fields >> index >> name >> value;
      if (!name.starts_with("z") || value < 0.5) continue;
      const std::size_t i = std::stoul(name.substr(1));
      solution.plan.at(stages_.at(i)) = choices_.at(i);
      ++chosen;
    }
    EXPECT_EQ(chosen, stages_of_plan_);
    return solution;
  }

 private:
  std::vector<StageChoice> choices_;  // of each binary
  std::vector<int> stages_;
  std::string text_;
  int stages_of_plan_ = 0;
};

class InterStageMilp : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (!has_cbc()) GTEST_SKIP() << "the solver cbc is not here; install the package coinor-cbc";
    std::string folder = (std::filesystem::temp_directory_path() / "gantry_milp_XXXXXX").string();
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
  }
  void TearDown() override {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  void compare(const StageTables& tables, int devices, int stages, const Objective& objective) {
    const auto [milp, optimal] = Milp(tables, devices, objective, stages).solve(folder_);
    const auto ours = inter_stage(tables, devices, objective, {.stages = stages});
    ASSERT_FALSE(milp.empty()) << "instances are meant to be feasible";
    ASSERT_EQ(ours.size(), 1u);
    const double milp_s = iteration_s(milp, objective);
    EXPECT_LE(ours[0].iteration_s, milp_s * (1 + 1e-9)) << "above the solver's plan";
    // CBC stops within its tolerances of 1e-6.
    if (optimal) {
      EXPECT_NEAR(ours[0].iteration_s, milp_s, 2e-6 * milp_s);
    }
    EXPECT_NEAR(ours[0].iteration_s, iteration_s(ours[0].stages, objective), 1e-12 * milp_s);
  }

  std::filesystem::path folder_;
};

TEST_P(InterStageMilp, NeverAboveWithEqualMeshes) {
  CounterRandom random(GetParam());
  const int stages = 4 + static_cast<int>(random.below(5));
  TableShape shape;
  shape.layers = 24 + static_cast<int>(random.below(25));
  shape.max_stages = stages;
  shape.points = 10 + static_cast<int>(random.below(21));
  shape.min_layers = std::max(1, shape.layers / stages - 2);
  shape.max_layers = shape.layers / stages + 2;
  const double micro_batches = 2 << random.below(6);
  compare(random_tables(random, shape), stages, stages, {micro_batches - 1, 1});
}

TEST_P(InterStageMilp, NeverAboveWithUnequalMeshes) {
  CounterRandom random(1000 + GetParam());
  const int stages = 3 + static_cast<int>(random.below(2));
  TableShape shape;
  shape.layers = 18 + static_cast<int>(random.below(7));
  shape.mesh_devices = {1, 2, 4};
  shape.max_stages = stages;
  shape.points = 4;
  shape.holes = 0.4;
  shape.min_layers = 3;
  shape.max_layers = 11;
  const double micro_batches = 4 << random.below(5);
  compare(random_tables(random, shape), 2 * stages, stages, {micro_batches - 0.5, 0.5});
}

INSTANTIATE_TEST_SUITE_P(Seeds, InterStageMilp, ::testing::Range(0, 12));

}  // namespace
}  // namespace gantry::plan
