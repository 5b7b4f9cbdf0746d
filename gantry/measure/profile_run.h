#pragma once
// `gantry profile`: measures operators, copies, collectives and interference of this machine into a hardware profile.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "gantry/cost/profile.h"
#include "gantry/measure/collectives.h"
#include "gantry/measure/interference.h"
#include "gantry/measure/links.h"
#include "gantry/measure/operators.h"

namespace gantry::measure {

struct ProfileOptions {
  std::int64_t sequence = 512;
  std::vector<std::string> batch = {"1", "2", "4"};
  std::string dtype = "fp32";
  std::string name = "this";
  std::int64_t threads = 0;
  bool quick = false;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit.group("Measuring");
    visit("sequence", sequence, "tokens of a sequence");
    visit("batch", batch, "micro-batches whose operators are measured, in sequences");
    visit("dtype", dtype, "type of weights and activations: fp32 or bf16");
    visit("name", name, "name that the profile gets");
    visit("threads", threads, "threads of this process; 0: one a processor");
    visit("quick", quick, "fewer sizes and repetitions: under half a minute, more noise");
  }
};

/// A profile and how far its numbers may be trusted.
struct ProfileReport {
  cost::Profile profile;
  std::vector<MeasuredOperator> operators;  ///< in the order of profile.operators
  MeasuredLink copy_in;
  MeasuredLink copy_out;
  std::vector<MeasuredCollective> collectives;
  MeasuredInterference interference;
  double seconds = 0;  ///< that measuring took
};

/// Throws InputError, which names the option, before anything is started.
void check_options(const spec::ModelConfig& model, const ProfileOptions& options);

/// Rank 0's part. `meeting` is null where one process measures alone: then there are no collectives. Collectives and
/// interference come first, with this node's threads shared among its ranks; then the other ranks are done, and
/// operators get all threads. Interrupted on Ctrl-C. Reports progress on stderr. The result passes
/// cost::profile_from_json.
ProfileReport run_profile(const spec::ModelConfig& model, const std::string& model_name, const ProfileOptions& options,
                          MeetingPoint* meeting);

/// The part of every other rank, with the same options.
void assist_profile(const ProfileOptions& options, MeetingPoint& meeting);

}  // namespace gantry::measure
