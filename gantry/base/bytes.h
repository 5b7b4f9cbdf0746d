#pragma once
#include <cstdint>
#include <string_view>

namespace gantry::base {

/// "3GiB", "1.5 GiB", "800MB", "4096": bytes, with a binary (KiB, MiB, GiB, TiB) or decimal (KB, MB, GB, TB) unit in
/// either case, or none. InputError naming `what` for anything else, for less than a byte and for more than 2^62.
std::uint64_t parse_bytes(std::string_view text, std::string_view what);

}  // namespace gantry::base
