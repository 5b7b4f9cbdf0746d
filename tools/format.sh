#!/usr/bin/env bash
# Formats every C++ and CUDA file in place, or with --check only names those that differ.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v clang-format >/dev/null || { echo "format: clang-format is missing; run make setup-dev" >&2; exit 1; }
mapfile -t files < <(git ls-files --cached --others --exclude-standard -- '*.h' '*.cpp' '*.cu' '*.cuh')
existing=()
for file in "${files[@]}"; do [ -f "$file" ] && existing+=("$file"); done
if [ "${1:-}" = --check ]; then
  printf '%s\0' "${existing[@]}" | xargs -0 -n 32 clang-format --dry-run --Werror
else
  printf '%s\0' "${existing[@]}" | xargs -0 -n 32 clang-format -i
fi
