#!/usr/bin/env bash
# clang-tidy over the torch-free modules, or with --changed over those of their files that differ from HEAD's parent
# branch point or are not committed yet. (g++'s precompiled torch header keeps clang out of the other modules.)
set -euo pipefail
cd "$(dirname "$0")/.."
command -v clang-tidy >/dev/null || { echo "tidy: clang-tidy is missing; run make setup-dev" >&2; exit 1; }
build=build/lint
cmake -S . -B $build -G Ninja -DGANTRY_WITH_TORCH=OFF -DGANTRY_BUILD_TESTS=OFF -DGANTRY_UNITY=OFF >/dev/null
mapfile -t files < <(sed -n 's/^ *"file": "\(.*\)",\{0,1\}$/\1/p' $build/compile_commands.json | grep "^$PWD/gantry/" | sort -u)
if [ "${1:-}" = --changed ]; then
  base=$(git merge-base HEAD origin/main 2>/dev/null || git rev-parse HEAD)
  changed=$({ git diff --name-only "$base"; git ls-files --others --exclude-standard; } | sed "s#^#$PWD/#")
  mapfile -t files < <(printf '%s\n' "${files[@]}" | grep -xF -f <(printf '%s\n' "$changed") || true)
  [ -n "${files[*]:-}" ] || { echo "tidy: no changed file"; exit 0; }
fi
printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "${JOBS:-2}" clang-tidy -p $build --quiet
