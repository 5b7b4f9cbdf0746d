#pragma once
// Internal to inter_stage: the cheapest plans whose stages are no slower than a cap, by dynamic programming.
//
// With E = max(fill * sum t, max_i (d_i + fill * sum_{j >= i} t_j)) an iteration takes steady * max t + E. Appending a
// stage (t, d) at the end turns E into max(E, d) + fill * t, which grows with E: once the cap on max t is fixed, the
// best E of a prefix is a single number. A state is (stages after the prefix, layers in it, devices in it); the number
// of stages before does not matter, so one table serves all stage counts.
#include <cstdint>
#include <limits>
#include <vector>

#include "gantry/plan/inter_stage_lists.h"

namespace gantry::plan::internal {

struct CappedPlan {
  double e_s = 0;
  std::vector<StageChoice> stages;
};

class CappedSearch {
 public:
  /// Plans that cost `cutoff_s` or more are of no interest. `lists` outlives the search.
  CappedSearch(const PointLists& lists, const Objective& objective, double cutoff_s);

  bool feasible() const { return min_max_t_s_ < std::numeric_limits<double>::infinity(); }
  double min_max_t_s() const { return min_max_t_s_; }  ///< least max t of a plan of interest, or less
  double min_e_s() const { return min_e_s_; }          ///< least E of a plan of interest, or less

  /// Of the plans with all t <= cap_s and E < e_cutoff_s, those with the least E, at most `best`, in order of E.
  std::vector<CappedPlan> run(double cap_s, double e_cutoff_s);

 private:
  struct Row {  // states of one (stages after, layers): devices first .. first + count - 1, in units
    int first = 0;
    int count = 0;
    std::size_t begin = 0;
    int end() const { return first + count; }
  };
  struct Label {
    double e_s;
    std::uint32_t slot;
    std::uint32_t point;
    std::uint32_t rank;  // of the label it extends
  };

  Row& row(int after, int layers) { return rows_[static_cast<std::size_t>(after) * (lists_.layers() + 1) + layers]; }
  void lay_out_rows();
  void bound_suffixes(int after);
  void drop_hopeless(int after);
  void bound_plans();
  void start(int after);
  void extend(int after, int layers);
  void extend_row(const Row& from, const Row& to, std::uint32_t slot);
  void extend_best(const Label& from, Label& to, std::uint32_t slot) const;
  void extend_ranked(const Label* from, Label* to, std::uint32_t slot) const;
  void insert(Label* to, const Label& label) const;
  CappedPlan reconstruct(int rank);

  const PointLists& lists_;
  Objective objective_;
  double cutoff_s_;
  int best_;
  std::vector<Row> rows_;
  // A bound for every state over the stages after it, each alone: least fill * sum t, least max t.
  std::vector<double> sum_after_s_, max_after_s_;
  std::vector<Label> labels_;             // best_ a state, ascending; e_s is infinite where there is none
  std::vector<std::uint32_t> num_below_;  // points of a list within the cap
  std::vector<char> reached_;             // rows with a label
  double e_cutoff_s_ = 0;
  double cap_s_ = 0;
  double min_max_t_s_ = std::numeric_limits<double>::infinity();
  double min_e_s_ = std::numeric_limits<double>::infinity();
};

}  // namespace gantry::plan::internal
