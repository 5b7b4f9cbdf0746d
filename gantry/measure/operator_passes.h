#pragma once
// One timed forward and backward of each operator; used by operators.cpp alone.
#include <ATen/core/Tensor.h>

#include <functional>

#include "gantry/measure/operators.h"

namespace gantry::measure {

struct OperatorPass {
  std::function<PassSeconds()> run;
  double scale = 1;  ///< the whole operator over what a run does
};

OperatorPass make_pass(const OperatorShape& shape, const spec::ModelConfig& model, const at::TensorOptions& options);

}  // namespace gantry::measure
