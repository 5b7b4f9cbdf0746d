#pragma once
// Where this process stands among those that measure together: what a launcher says, or local processes of our own.
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "gantry/cost/collectives.h"

namespace gantry::measure {

struct RankPlace {
  int rank = 0;
  int ranks = 1;
  int per_node = 1;                   ///< ranks of each node; neighbours in rank share nodes
  std::string address = "127.0.0.1";  ///< where rank 0, or the launcher, keeps the store
  int port = 0;                       ///< 0: any free one (rank 0 alone)
  bool served = false;                ///< the launcher keeps the store, rank 0 need not

  int nodes() const { return ranks / per_node; }
  int node() const { return rank / per_node; }
  int local_rank() const { return rank % per_node; }
};

/// From the variables of torchrun (RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT), Open MPI
/// (OMPI_COMM_WORLD_*), MPICH and Intel MPI (PMI_*, MPI_LOCALNRANKS) or srun (SLURM_PROCID, SLURM_STEP_*), in this
/// order; nothing where none launched this process. With the latter three MASTER_ADDR names the host of rank 0 where
/// there are several nodes, and MASTER_PORT (29500) a free port. InputError where a variable is missing or senseless.
std::optional<RankPlace> launched_place();

/// Processes of this very command line that stand as ranks 1 to N-1 on this machine, told so by torchrun's variables.
/// Destroying it ends them.
class LocalRanks {
 public:
  LocalRanks(int ranks, int port);
  ~LocalRanks();
  LocalRanks(const LocalRanks&) = delete;
  LocalRanks& operator=(const LocalRanks&) = delete;

  /// Waits until all have ended by themselves. Error names the first one that failed.
  void wait();

 private:
  void start(int rank, int ranks, int port);
  std::vector<pid_t> children_;
};

}  // namespace gantry::measure
