#pragma once
// The course of one step: how far each channel has come at what time, under the interference model.
#include <array>

#include "gantry/cost/interference.h"

namespace gantry::simulate {

/// Channels start together at 0. While the set S is busy, channel c does 1 / slowdown(factors, S, c) seconds of
/// stand-alone work a second. Work under 10 ns neither slows nor is slowed; it is done after all else, one channel
/// after the other, as in cost::overlap_s.
class Flow {
 public:
  Flow(const cost::ChannelTimes& alone_s, const cost::Factors& factors);

  /// Until all is done; equals cost::overlap_s bit by bit.
  double seconds() const { return seconds_; }
  /// When `channel` has done `work_s` of its stand-alone seconds; the end for all of it or more.
  double time_of(int channel, double work_s) const;
  double start_s(int channel) const { return time_of(channel, 0); }
  double end_s(int channel) const;

 private:
  // Work done over time, a polyline from (0 or later, 0) to (end, all); empty where the channel idles.
  struct Point {
    double time_s = 0;
    double done_s = 0;
  };
  struct Course {
    std::array<Point, cost::kChannels + 2> points{};
    int count = 0;
    void add(double time_s, double done_s) { points[static_cast<std::size_t>(count++)] = {time_s, done_s}; }
  };
  std::array<Course, cost::kChannels> courses_{};
  double seconds_ = 0;
};

}  // namespace gantry::simulate
