#pragma once
// Progress of long verbs: a bar with rate and ETA on a terminal, a plain line every few seconds in a log.
#include <chrono>
#include <cstdint>
#include <string>

namespace gantry::base {

/// Writes to stderr. Not thread-safe: one owner reports.
class Progress {
 public:
  /// `total` in `unit`s; 0 when unknown. `label` names the work ("training", "loading"). `done` was done before this
  /// started (a resumed run) and does not count in the rate.
  Progress(std::string label, std::uint64_t total, std::string unit, std::uint64_t done = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Sets how much is done, with a short note shown behind the bar ("loss 2.31").
  void update(std::uint64_t done, const std::string& note = "");
  /// Draws the last state and ends the line. Called by the destructor too.
  void finish();

 private:
  void draw(bool last);

  std::string label_;
  std::string unit_;
  std::string note_;
  std::uint64_t total_;
  std::uint64_t done_ = 0;
  std::uint64_t first_done_ = 0;
  bool started_ = false;
  bool finished_ = false;
  bool terminal_;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_draw_;
};

/// "1h02m", "3m20s", "45s"; "?" for NaN, negative and absurdly long ones.
std::string format_duration(double seconds);
/// "1.5 GiB", "320 KiB".
std::string format_bytes(std::uint64_t bytes);

}  // namespace gantry::base
