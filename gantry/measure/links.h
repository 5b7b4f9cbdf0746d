#pragma once
// What memory, matrix units and copies of this machine deliver.
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "gantry/cost/collectives.h"
#include "gantry/measure/timing.h"

namespace gantry::measure {

/// seconds = GB / bandwidth + latency fitted to medians at several sizes; the samples come along.
struct MeasuredLink {
  cost::Link link;
  std::vector<cost::LinkSample> samples;
};

enum class CopyDirection { kIn, kOut };

/// Copies between host and device: pinned memory and the device's own on CUDA, two host buffers that outgrow the caches
/// on the CPU, each copy by one thread as a copy worker makes it. `sizes_bytes`: two or more.
MeasuredLink measure_copies(CopyDirection direction, at::Device device, const std::vector<std::int64_t>& sizes_bytes,
                            const TimingOptions& options);

/// Bytes a second of a long read by all threads (CPU), or read and written by a copy within the device (CUDA); the best
/// run.
double memory_bytes_per_s(at::Device device, std::int64_t bytes, const TimingOptions& options);

/// Flop/s of the fastest of several runs of a square product of `size`.
double matrix_flops_per_s(at::ScalarType dtype, at::Device device, std::int64_t size, const TimingOptions& options);

/// AdamW elements a second over flat fp32 state in host memory, all threads.
double host_update_elements_per_s(std::int64_t elements, const TimingOptions& options);

}  // namespace gantry::measure
