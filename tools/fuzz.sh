#!/usr/bin/env bash
# Runs every fuzz target of build/fuzz for FUZZ_SECONDS (10) seconds, starting from its corpus in fuzz/corpus/<target>.
# New inputs go to build/fuzz/found; a crash ends the run and names the file that shows it.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-10}
found_any=
for target in build/fuzz/fuzz/*_fuzz; do
  [ -x "$target" ] || continue
  found_any=1
  name=$(basename "$target" _fuzz)
  mkdir -p "build/fuzz/found/$name"
  corpora=("build/fuzz/found/$name")
  [ -d "fuzz/corpus/$name" ] && corpora+=("fuzz/corpus/$name")
  echo "fuzz: $name for ${seconds}s"
  log=build/fuzz/found/$name.log
  "$target" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -verbosity=0 \
    -print_final_stats=1 -artifact_prefix="build/fuzz/found/$name-" -max_len=65536 \
    "${corpora[@]}" >"$log" 2>&1 || { tail -n 40 "$log"; echo "fuzz: $name failed, see $log" >&2; exit 1; }
  grep -E 'number_of_executed_units|peak_rss' "$log"
done
[ -n "$found_any" ] || { echo "fuzz: no target in build/fuzz/fuzz" >&2; exit 1; }
