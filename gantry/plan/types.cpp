#include "gantry/plan/types.h"

#include "gantry/base/check.h"

namespace gantry::plan {

std::string_view schedule_name(Schedule schedule) {
  switch (schedule) {
    case Schedule::kOneFOneB: return "1f1b";
    case Schedule::kInterleaved: return "interleaved";
    case Schedule::kZeroBubble: return "zero_bubble";
  }
  GANTRY_UNREACHABLE();
}

}  // namespace gantry::plan
