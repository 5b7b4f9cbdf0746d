#include "gantry/simulate/flow.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace gantry::simulate {
namespace {

constexpr double kNothing_s = 1e-8;  // of cost::overlap_s

unsigned busy_channels(const cost::ChannelTimes& left) {
  unsigned busy = 0;
  for (std::size_t c = 0; c < cost::kChannels; ++c) busy |= static_cast<unsigned>(left[c] > kNothing_s) << c;
  return busy;
}

}  // namespace

Flow::Flow(const cost::ChannelTimes& alone_s, const cost::Factors& factors) {
  cost::ChannelTimes left = alone_s;
  double now = 0;
  unsigned busy = busy_channels(left);
  for (std::size_t c = 0; c < cost::kChannels; ++c) {
    if ((busy >> c & 1) != 0) courses_[c].add(0, 0);
  }
  while (std::popcount(busy) >= 2) {
    cost::ChannelTimes slowed{};
    double elapsed = std::numeric_limits<double>::infinity();
    for (std::size_t c = 0; c < cost::kChannels; ++c) {
      if ((busy >> c & 1) == 0) continue;
      slowed[c] = left[c] * cost::slowdown(factors, busy, static_cast<int>(c));
      elapsed = std::min(elapsed, slowed[c]);
    }
    now += elapsed;
    for (std::size_t c = 0; c < cost::kChannels; ++c) {
      if ((busy >> c & 1) == 0) continue;
      left[c] = slowed[c] == elapsed ? 0.0 : left[c] - elapsed / cost::slowdown(factors, busy, static_cast<int>(c));
      courses_[c].add(now, alone_s[c] - left[c]);
    }
    busy = busy_channels(left);
  }
  seconds_ = now + ((left[0] + left[1]) + (left[2] + left[3]));
  for (std::size_t c = 0; c < cost::kChannels; ++c) {
    if (left[c] <= 0) continue;
    if (courses_[c].count == 0) courses_[c].add(now, 0);
    now = std::min(now + left[c], seconds_);
    courses_[c].add(now, alone_s[c]);
  }
}

double Flow::time_of(int channel, double work_s) const {
  const Course& course = courses_[static_cast<std::size_t>(channel)];
  for (int i = 1; i < course.count; ++i) {
    const Point& from = course.points[static_cast<std::size_t>(i) - 1];
    const Point& to = course.points[static_cast<std::size_t>(i)];
    if (work_s >= to.done_s) continue;
    const double share = std::max(work_s - from.done_s, 0.0) / (to.done_s - from.done_s);
    return from.time_s + share * (to.time_s - from.time_s);
  }
  return end_s(channel);
}

double Flow::end_s(int channel) const {
  const Course& course = courses_[static_cast<std::size_t>(channel)];
  return course.count == 0 ? 0 : course.points[static_cast<std::size_t>(course.count) - 1].time_s;
}

}  // namespace gantry::simulate
