#!/usr/bin/env bash
# .venv-bench: the Python programs that `make bench` measures against. Absent ones are reported as missing, never guessed.
set -euo pipefail
cd "$(dirname "$0")/.."
list=bench/baselines/requirements.txt
[ -f "$list" ] || { echo "bench-setup: $list is missing" >&2; exit 1; }
stamp=$(cksum <"$list")
if [ "$(cat .venv-bench/.gantry-setup 2>/dev/null)" = "$stamp" ]; then exit 0; fi
[ -x .venv-bench/bin/python ] || .venv/bin/python -m venv .venv-bench
echo "bench-setup: installing $list into .venv-bench"
pip=(.venv-bench/bin/python -m pip --disable-pip-version-check install --quiet)
if ! "${pip[@]}" -r "$list"; then
  # One that cannot be had must not take the others with it; benchmarks report it as missing.
  missing=
  while read -r package; do
    "${pip[@]}" "$package" || missing+=" $package"
  done < <(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$list")
  [ -z "$missing" ] || { echo "bench-setup: pip could not install:$missing; their rows will read missing" >&2; exit 0; }
fi
printf '%s\n' "$stamp" >.venv-bench/.gantry-setup
