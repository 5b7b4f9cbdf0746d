#pragma once
// What the operating system says of this process and machine.
#include <cstdint>
#include <string>

namespace gantry::base {

/// Resident bytes of this process now, and their peak since start (or since reset_peak_memory()).
std::uint64_t resident_bytes();
std::uint64_t peak_resident_bytes();
/// Starts a new peak measurement (Linux: clears VmHWM). False where the system does not allow it.
bool reset_peak_memory();

/// "AMD EPYC 9B14", or "unknown".
std::string cpu_name();
std::uint64_t total_memory_bytes();
/// UTC, "2026-01-31T12:00:00Z".
std::string utc_time();

/// In a process just forked by `parent`: has the system kill it (SIGKILL) when that one ends, or ends it if that has
/// happened. What it becomes by exec keeps this.
void end_with_parent(int parent);

/// Lets the C allocator keep freed blocks up to 32 MiB for reuse instead of returning them to the system, so that a
/// training step does not fault in the same activation pages again and again. Call once at start.
void keep_freed_memory();
/// Returns to the system what is free, whatever keep_freed_memory() says.
void release_freed_memory();

}  // namespace gantry::base
