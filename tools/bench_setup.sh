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
.venv-bench/bin/python -m pip --disable-pip-version-check install --quiet -r "$list" ||
  { echo "bench-setup: pip could not install $list; check the messages above and the connection to PyPI" >&2; exit 1; }
printf '%s\n' "$stamp" >.venv-bench/.gantry-setup
