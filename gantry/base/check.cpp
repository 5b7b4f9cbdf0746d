#include "gantry/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace gantry::base::internal {

void assertion_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "gantry: internal error: %s at %s:%d. Please report this with the command you ran.\n", condition,
               file, line);
  std::abort();
}

}  // namespace gantry::base::internal
