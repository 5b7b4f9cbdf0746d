#pragma once
#include "gantry/layers/mlp.h"
#include "gantry/spec/config.h"

namespace gantry::models {

/// The layer's name for a configuration's activation.
layers::MlpActivation to_layer(spec::Activation activation);

}  // namespace gantry::models
