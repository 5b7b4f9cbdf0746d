#pragma once
// Guarded places for what the two forms of attention return, and the arguments of their kernels, on the CPU or in CUDA.
#include <algorithm>

#include "gantry/kernels/attention/stored_raw.h"
#include "tests/kernels/attention_problem.h"

namespace gantry::kernels::testing {

inline std::int64_t flash_scratch(const Problem& p) {
  const FlashShape shape = flash_shape(p);
  return std::max(flash_forward_scratch(shape), flash_backward_scratch(shape));
}

template <class T>
struct FlashAttempt {
  FlashAttempt(const Problem& p, const Stored<T>& s) : FlashAttempt(p, s, flash_scratch(p)) {}
  FlashAttempt(const Problem& p, const Stored<T>& s, std::int64_t scratch_floats)
      : shape(flash_shape(p)),
        out(s.q.size()),
        dq(s.q.size()),
        dk(s.k.size()),
        dv(s.k.size()),
        lse(kBatch * kHeads * p.shape.q_length),
        scratch(scratch_floats),
        dscores(Doubles(static_cast<std::size_t>(lse.size() * p.shape.k_length), 0.0)) {}

  FlashForwardArgs<T> forward(const Stored<T>& s) {
    return {shape, s.q_view(s.q), s.k_view(s.k), s.k_view(s.v), s.q_view(out), lse.data(), scratch.data()};
  }
  FlashBackwardArgs<T> backward(const Stored<T>& s, const Guarded<T>& done) {
    return {shape,      s.q_view(s.q), s.k_view(s.k), s.k_view(s.v), s.q_view(done), s.q_view(s.dout),
            lse.data(), s.q_view(dq),  s.k_view(dk),  s.k_view(dv),  scratch.data(), dscores.data()};
  }
  bool intact() const { return lse.intact() && scratch.intact() && dscores.intact(); }

  FlashShape shape;
  Guarded<T> out, dq, dk, dv;
  Guarded<float> lse, scratch, dscores;
};

template <class T>
struct StoredAttempt {
  StoredAttempt(const Problem& problem, const Stored<T>& s)
      : shape(flash_shape(problem)),
        out(s.q.size()),
        dq(s.q.size()),
        dk(s.k.size()),
        dv(s.k.size()),
        p(kBatch * kHeads * shape.q_length * shape.k_length),
        forward_scratch(stored_forward_scratch(shape)),
        scratch(flash_backward_scratch(shape)),
        dscores(Doubles(static_cast<std::size_t>(p.size()), 0.0)) {}

  StoredForwardArgs<T> forward(const Stored<T>& s) {
    return {shape, s.q_view(s.q), s.k_view(s.k), s.k_view(s.v), s.q_view(out), p.data(), forward_scratch.data()};
  }
  StoredBackwardArgs<T> backward(const Stored<T>& s) {
    const Guarded<T>& done = out;
    return {shape,    s.q_view(s.q), s.k_view(s.k), s.k_view(s.v), s.q_view(done), s.q_view(s.dout),
            p.data(), s.q_view(dq),  s.k_view(dk),  s.k_view(dv),  scratch.data(), dscores.data()};
  }

  FlashShape shape;
  Guarded<T> out, dq, dk, dv, p;
  Guarded<float> forward_scratch, scratch, dscores;
};

}  // namespace gantry::kernels::testing
