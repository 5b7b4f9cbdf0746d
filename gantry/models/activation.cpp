#include "gantry/models/activation.h"

#include "gantry/base/check.h"

namespace gantry::models {

layers::MlpActivation to_layer(spec::Activation activation) {
  switch (activation) {
    case spec::Activation::kSilu: return layers::MlpActivation::kSilu;
    case spec::Activation::kGeluErf: return layers::MlpActivation::kGeluErf;
    case spec::Activation::kGeluTanh: return layers::MlpActivation::kGeluTanh;
    case spec::Activation::kQuickGelu: return layers::MlpActivation::kQuickGelu;
    case spec::Activation::kRelu: return layers::MlpActivation::kRelu;
  }
  GANTRY_UNREACHABLE();
}

}  // namespace gantry::models
