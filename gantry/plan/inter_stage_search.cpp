#include "gantry/plan/inter_stage_search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "gantry/base/check.h"

namespace gantry::plan::internal {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::size_t kMaxLabels = std::size_t{1} << 28;
// Bounds and costs add the same numbers in different orders; pruning leaves room for the rounding.
constexpr double kRounding = 1 + 1e-12;

}  // namespace

CappedSearch::CappedSearch(const PointLists& lists, const Objective& objective, double cutoff_s)
    : lists_(lists), objective_(objective), cutoff_s_(cutoff_s * kRounding), best_(lists.scope().best) {
  if (lists.units() == 0 || lists.num_points() == 0) return;
  lay_out_rows();
  const Row& end = row(0, lists_.layers());
  if (end.count == 0) return;
  sum_after_s_[end.begin] = 0;
  max_after_s_[end.begin] = 0;
  for (int after = 0; after + 1 < lists_.scope().max_stages; ++after) {
    if (after > 0) drop_hopeless(after);
    bound_suffixes(after);
  }
  drop_hopeless(lists_.scope().max_stages - 1);
  bound_plans();
}

// The states that counting leaves possible. With w the least t * units / layers of a point, stages within the cap do at
// most cap / w layers a unit, before and after the state alike: a state with too many layers for its devices is none.
void CappedSearch::lay_out_rows() {
  const SearchScope& scope = lists_.scope();
  const int layers = lists_.layers(), units = lists_.units();
  rows_.resize(static_cast<std::size_t>(scope.max_stages) * (layers + 1));
  const double units_a_layer = std::isfinite(scope.cap_s) ? lists_.least_work_s() / (scope.cap_s * kRounding) : 0;
  const auto units_for = [&](int count) { return static_cast<int>(std::ceil(count * units_a_layer * (1 - 1e-12))); };
  std::size_t states = 1;
  row(0, layers) = {units, 1, 0};
  for (int after = 1; after < scope.max_stages; ++after) {
    const int before = std::max(1, scope.min_stages - after);
    for (int done = before; done <= layers - after; ++done) {
      const std::int64_t low =
          std::max<std::int64_t>({std::int64_t{before} * lists_.min_mesh_units(),
                                  units - std::int64_t{after} * lists_.max_mesh_units(), units_for(done)});
      const std::int64_t high = std::min({std::int64_t{scope.max_stages - after} * lists_.max_mesh_units(),
                                          units - std::int64_t{after} * lists_.min_mesh_units(),
                                          std::int64_t{units} - units_for(layers - done)});
      if (low > high) continue;
      row(after, done) = {static_cast<int>(low), static_cast<int>(high - low + 1), states};
      states += static_cast<std::size_t>(high - low + 1);
    }
  }
  GANTRY_CHECK(
      states * best_ <= kMaxLabels,
      "splitting {} layers and {} devices over up to {} stages for the best {} plans needs {} states, more than "
      "{}; ask for fewer plans, stages or mesh shapes, or give an incumbent",
      layers, scope.devices, scope.max_stages, best_, states * best_, kMaxLabels);
  sum_after_s_.assign(states, kInfinity);
  max_after_s_.assign(states, kInfinity);
}

// Prepends a stage to the suffixes of the states with `after` stages to follow.
void CappedSearch::bound_suffixes(int after) {
  for (int done = after == 0 ? lists_.layers() : 1; done <= lists_.layers(); ++done) {
    const Row& from = row(after, done);
    if (from.count == 0) continue;
    for (int layers = 1; layers < done; ++layers) {
      const Row& to = row(after + 1, done - layers);
      if (to.count == 0) continue;
      for (int mesh = 0; mesh < lists_.num_meshes(); ++mesh) {
        const PointList& list = lists_.list(lists_.slot({false, after, layers, mesh}));
        if (list.count == 0) continue;
        const int units = lists_.mesh_units(mesh);
        const int low = std::max(to.first, from.first - units), high = std::min(to.end(), from.end() - units);
        const double t_s = list.min_t_s, fill_s = objective_.fill * t_s;
        const double* from_sum = sum_after_s_.data() + from.begin + (low + units - from.first);
        const double* from_max = max_after_s_.data() + from.begin + (low + units - from.first);
        double* to_sum = sum_after_s_.data() + to.begin + (low - to.first);
        double* to_max = max_after_s_.data() + to.begin + (low - to.first);
        for (int i = 0; i < high - low; ++i) {
          to_sum[i] = std::min(to_sum[i], from_sum[i] + fill_s);
          to_max[i] = std::min(to_max[i], std::max(from_max[i], t_s));
        }
      }
    }
  }
}

// A plan through a state costs at least steady * (largest of the bounds on max t before and after) + fill * (least sum
// of t before + after), since E is at least fill * sum t; the stages before do their layers with w unit-seconds each.
void CappedSearch::drop_hopeless(int after) {
  for (int done = 1; done <= lists_.layers(); ++done) {
    Row& states = row(after, done);
    int low = states.count, high = 0;
    for (int i = 0; i < states.count; ++i) {
      const double before_s = lists_.least_work_s() * done / (states.first + i);
      double& sum_s = sum_after_s_[states.begin + i];
      const double cost_s =
          objective_.steady * std::max(max_after_s_[states.begin + i], before_s) + sum_s + objective_.fill * before_s;
      if (!(cost_s < cutoff_s_)) {
        sum_s = max_after_s_[states.begin + i] = kInfinity;
        continue;
      }
      low = std::min(low, i);
      high = i + 1;
    }
    if (low >= high) {
      states.count = 0;
      continue;
    }
    states = {states.first + low, high - low, states.begin + low};
  }
}

void CappedSearch::bound_plans() {
  for (std::uint32_t slot = lists_.num_slots() / 2; slot < lists_.num_slots(); ++slot) {
    const PointList& list = lists_.list(slot);
    if (list.count == 0) continue;
    const PointLists::Place place = lists_.place(slot);
    const Row& states = row(place.stages_after, place.layers);
    const int i = lists_.mesh_units(place.mesh) - states.first;
    if (i < 0 || i >= states.count) continue;
    const double sum_s = sum_after_s_[states.begin + i];
    if (sum_s == kInfinity) continue;
    min_max_t_s_ = std::min(min_max_t_s_, std::max(list.min_t_s, max_after_s_[states.begin + i]));
    min_e_s_ = std::min(min_e_s_, objective_.fill * list.min_t_s + sum_s);
  }
}

std::vector<CappedPlan> CappedSearch::run(double cap_s, double e_cutoff_s) {
  std::vector<CappedPlan> plans;
  if (!feasible()) return plans;
  cap_s_ = cap_s;
  e_cutoff_s_ = e_cutoff_s > 0 ? e_cutoff_s * kRounding : e_cutoff_s;
  labels_.assign(sum_after_s_.size() * best_, {kInfinity, 0, 0, 0});
  reached_.assign(rows_.size(), 0);
  num_below_.resize(lists_.num_slots());
  for (std::uint32_t slot = 0; slot < lists_.num_slots(); ++slot) {
    const PointList& list = lists_.list(slot);
    const double* t_s = lists_.t_s() + list.begin;
    num_below_[slot] = static_cast<std::uint32_t>(std::upper_bound(t_s, t_s + list.count, cap_s) - t_s);
  }
  for (int after = lists_.scope().max_stages - 1; after > 0; --after) {
    start(after);
    for (int done = 1; done <= lists_.layers() - after; ++done) {
      if (reached_[&row(after, done) - rows_.data()]) extend(after, done);
    }
  }
  for (int rank = 0; rank < best_ && labels_[row(0, lists_.layers()).begin * best_ + rank].e_s < kInfinity; ++rank) {
    plans.push_back(reconstruct(rank));
  }
  return plans;
}

// Plans whose first stage has `after` stages to follow.
void CappedSearch::start(int after) {
  for (int layers = 1; layers <= lists_.layers() - after; ++layers) {
    const Row& to = row(after, layers);
    for (int mesh = 0; mesh < lists_.num_meshes() && to.count > 0; ++mesh) {
      const std::uint32_t slot = lists_.slot({true, after, layers, mesh});
      const int i = lists_.mesh_units(mesh) - to.first;
      if (num_below_[slot] == 0 || i < 0 || i >= to.count) continue;
      const std::uint32_t begin = lists_.list(slot).begin;
      for (std::uint32_t point = begin; point < begin + num_below_[slot]; ++point) {
        const double e_s = std::max(0.0, lists_.d_s()[point]) + lists_.fill_s()[point];
        insert(&labels_[(to.begin + i) * best_], {e_s, slot, point, 0});
      }
      reached_[&to - rows_.data()] = 1;
    }
  }
}

// Appends a stage to the prefixes of a row. Dropped are labels whose E cannot stay below the cutoff (every stage that
// follows adds fill * t or more) and those that no stages within the cap complete.
void CappedSearch::extend(int after, int layers_done) {
  const Row& from = row(after, layers_done);
  bool any = false;
  for (std::size_t state = from.begin; state < from.begin + from.count; ++state) {
    Label* labels = &labels_[state * best_];
    if (labels[0].e_s == kInfinity) continue;
    const bool ends = max_after_s_[state] > cap_s_;
    for (int rank = 0; rank < best_; ++rank) {
      if (ends || !(labels[rank].e_s + sum_after_s_[state] < e_cutoff_s_)) labels[rank].e_s = kInfinity;
    }
    any = any || labels[0].e_s < kInfinity;
  }
  if (!any) return;
  const int left = lists_.layers() - layers_done;
  for (int layers = after == 1 ? left : 1; layers <= left - (after - 1); ++layers) {
    const Row& to = row(after - 1, layers_done + layers);
    for (int mesh = 0; mesh < lists_.num_meshes() && to.count > 0; ++mesh) {
      const std::uint32_t slot = lists_.slot({false, after - 1, layers, mesh});
      if (num_below_[slot] > 0) extend_row(from, to, slot);
    }
  }
}

void CappedSearch::extend_row(const Row& from, const Row& to, std::uint32_t slot) {
  const int units = lists_.mesh_units(lists_.place(slot).mesh);
  const double least_s = objective_.fill * lists_.list(slot).min_t_s;
  const int low = std::max(from.first, to.first - units), high = std::min(from.end(), to.end() - units);
  bool any = false;
  for (int n = low; n < high; ++n) {
    const std::size_t state = to.begin + (n + units - to.first);
    const Label* source = &labels_[(from.begin + (n - from.first)) * best_];
    Label* target = &labels_[state * best_];
    const double e_s = source->e_s + least_s;
    if (e_s >= target[best_ - 1].e_s || !(e_s + sum_after_s_[state] < e_cutoff_s_)) continue;
    if (best_ == 1) {
      extend_best(*source, *target, slot);
    } else {
      extend_ranked(source, target, slot);
    }
    any = true;
  }
  if (any) reached_[&to - rows_.data()] = 1;
}

// On the staircase the points with d <= E give E + fill * t, least for the first of them; those before it give
// d + fill * t whatever E is.
void CappedSearch::extend_best(const Label& from, Label& to, std::uint32_t slot) const {
  const std::uint32_t begin = lists_.list(slot).begin, count = num_below_[slot];
  const double* d_s = lists_.d_s() + begin;
  std::uint32_t split = 0;
  for (std::uint32_t length = count; length > 0;) {
    const std::uint32_t half = (length + 1) / 2;
    split += d_s[split + half - 1] > from.e_s ? half : 0;
    length -= half;
  }
  if (split < count) {
    const double e_s = from.e_s + lists_.fill_s()[begin + split];
    if (e_s < to.e_s) to = {e_s, slot, begin + split, 0};
  }
  if (split > 0) {
    const double e_s = lists_.alone_s()[begin + split - 1];
    if (e_s < to.e_s) to = {e_s, slot, lists_.alone_point()[begin + split - 1], 0};
  }
}

void CappedSearch::extend_ranked(const Label* from, Label* to, std::uint32_t slot) const {
  const std::uint32_t begin = lists_.list(slot).begin, end = begin + num_below_[slot];
  for (int rank = 0; rank < best_ && from[rank].e_s < kInfinity; ++rank) {
    for (std::uint32_t point = begin; point < end; ++point) {
      if (from[rank].e_s + lists_.fill_s()[point] >= to[best_ - 1].e_s) break;
      const double e_s = std::max(from[rank].e_s, lists_.d_s()[point]) + lists_.fill_s()[point];
      insert(to, {e_s, slot, point, static_cast<std::uint32_t>(rank)});
    }
  }
}

// The best_ least E of a state suffice: an extension preserves their order, so `best_` plans at least as good exist for
// every plan through a label that is left out.
void CappedSearch::insert(Label* to, const Label& label) const {
  int at = best_ - 1;
  if (label.e_s >= to[at].e_s) return;
  for (; at > 0 && label.e_s < to[at - 1].e_s; --at) to[at] = to[at - 1];
  to[at] = label;
}

CappedPlan CappedSearch::reconstruct(int rank) {
  CappedPlan plan;
  int after = 0, layers = lists_.layers(), units = lists_.units();
  for (bool first = false; !first; ++after) {
    const Row& states = row(after, layers);
    const Label& label = labels_[(states.begin + (units - states.first)) * best_ + rank];
    if (after == 0) plan.e_s = label.e_s;
    const PointLists::Place place = lists_.place(label.slot);
    plan.stages.push_back(lists_.choice(label.slot, label.point));
    first = place.first;
    layers -= place.layers;
    units -= lists_.mesh_units(place.mesh);
    rank = static_cast<int>(label.rank);
  }
  std::ranges::reverse(plan.stages);
  return plan;
}

}  // namespace gantry::plan::internal
