#pragma once
// Gradient accumulation without temporaries. A trainer registers, for each parameter, the slice of its flat gradient
// buffer; operators that produce a weight gradient by a matrix product then write it there (beta = 0 on the first write
// of a step, beta = 1 afterwards) and return an undefined gradient to autograd. Without an active registry operators
// return ordinary gradients, so gradcheck, hooks and torch::autograd::grad work as usual.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <unordered_map>

namespace gantry::tensor {

/// The place of one parameter's gradient.
struct GradientSlot {
  at::Tensor gradient;   ///< same shape as the parameter, a view into the flat buffer
  bool written = false;  ///< false: the first write overwrites, so that nobody has to zero the buffer
};

class GradientSinks {
 public:
  void add(const at::Tensor& parameter, at::Tensor gradient);
  /// Null when the parameter is not registered.
  GradientSlot* find(const at::Tensor& parameter);
  /// Starts an optimiser step: forgets all writes.
  void begin_step();
  /// Zeroes the slots that nothing was written to (parameters outside this step's graph).
  void finish_step();

  /// Makes this registry the active one while the guard lives. One registry at a time, process-wide.
  class Guard {
   public:
    explicit Guard(GradientSinks& sinks);
    ~Guard();
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    GradientSinks* previous_;
  };
  /// The active registry, or null.
  static GradientSinks* active();

 private:
  std::unordered_map<const c10::TensorImpl*, GradientSlot> slots_;
};

/// Adds `value` to a slot (copies on the first write), converting the type.
void accumulate(GradientSlot& slot, const at::Tensor& value);
/// slot (+)= a @ b, two-dimensional.
void accumulate_product(GradientSlot& slot, const at::Tensor& a, const at::Tensor& b);

}  // namespace gantry::tensor
