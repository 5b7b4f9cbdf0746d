#pragma once
// CPU tensors on huge pages: fewer page walks (each reads memory several times on a virtual machine) and fewer page
// faults. Torch-free, so that a program's main file stays cheap to compile.
#include <cstddef>

namespace gantry::tensor {

inline constexpr std::size_t kHugeTensorBytes = std::size_t{2} << 20;

/// From now on CPU tensors of kHugeTensorBytes and more ask for huge pages, unless the environment variable
/// THP_MEM_ALLOC_ENABLE is set, by which torch decides itself. They lie where they would lie without, so that no memory
/// is lost to alignment. Where the system gives no huge pages (/sys/kernel/mm/transparent_hugepage/enabled is `never`)
/// nothing changes. Call it before other threads allocate; a second call changes nothing.
void put_tensors_on_huge_pages();

/// Asks for whole huge pages around [start, start + bytes). What else lies on them must be this process's as well.
/// Advice: the system may refuse it, which costs nothing but speed.
void advise_huge_pages(void* start, std::size_t bytes);

}  // namespace gantry::tensor
