#!/usr/bin/env bash
# Installs what Gantry needs and is missing; safe to run again and again.
#   tools/setup.sh [--dev]
#   Torch_DIR=DIR       use that libtorch (the folder of TorchConfig.cmake); no torch wheel is installed
#   GANTRY_PYTHON=EXE   interpreter for .venv (default: the first of Python 3.10 to 3.13 that can make one)
#   GANTRY_SKIP_APT=1   trust that the packages of tools/apt-packages.txt, or equivalents, are there
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# Names of a package list: comments dropped; `required` or `optional` ones.
package_names() {
  local kind=$1; shift
  sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$@" |
    if [ "$kind" = optional ]; then sed -n 's/^?//p'; else sed '/^?/d'; fi
}

# Those of the arguments that dpkg does not report as installed.
missing_packages() {
  [ $# -gt 0 ] || return 0
  local installed
  installed=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "$@" 2>/dev/null | sed -n 's/ installed$//p' || true)
  printf '%s\n' "$@" | grep -vxF -f <(printf '%s\n' "$installed") || true
}

apt_get() {
  if [ "$(id -u)" -eq 0 ]; then
    DEBIAN_FRONTEND=noninteractive apt-get -q "$@"
  else
    sudo env DEBIAN_FRONTEND=noninteractive apt-get -q "$@"
  fi
}

install_packages() {
  local lists=("$@") required optional missing known="" name
  if [ -n "${GANTRY_SKIP_APT:-}" ]; then say "GANTRY_SKIP_APT is set, system packages are not checked"; return; fi
  mapfile -t required < <(package_names required "${lists[@]}")
  mapfile -t optional < <(package_names optional "${lists[@]}")
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    die "this machine has no apt; install the equivalents of ${lists[*]} by hand, then run: GANTRY_SKIP_APT=1 make setup"
  fi
  mapfile -t missing < <(missing_packages "${required[@]}")
  [ -n "${missing[*]:-}" ] || missing=()
  for name in $(missing_packages "${optional[@]}"); do
    if apt-cache show "$name" >/dev/null 2>&1; then missing+=("$name"); else known+=" $name"; fi
  done
  [ -z "$known" ] || say "optional packages not offered by this release:$known"
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing with apt: ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    local command="apt-get install -y --no-install-recommends ${missing[*]}"
    command -v sudo >/dev/null || die "apt needs root and there is no sudo; as root run: $command"
    if ! sudo -n true 2>/dev/null && [ ! -t 0 ]; then
      die "apt needs root and sudo cannot ask for a password here; run: sudo $command"
    fi
    say "apt needs root; sudo may ask for your password"
  fi
  if ! compgen -G '/var/lib/apt/lists/*Packages*' >/dev/null; then apt_get update || true; fi
  # Package lists may be older than the archive: refresh them once before giving up.
  apt_get install -y --no-install-recommends "${missing[@]}" ||
    { apt_get update && apt_get install -y --no-install-recommends "${missing[@]}"; } ||
    die "apt could not install: ${missing[*]}; run 'apt-get update', read the messages above, then run make setup again"
}

# An interpreter that can make a virtual environment with pip in it. The system's own comes first, because the
# headers of python3-dev belong to it.
find_python() {
  local candidate
  for candidate in ${GANTRY_PYTHON:-/usr/bin/python3 python3 python3.13 python3.12 python3.11 python3.10}; do
    command -v "$candidate" >/dev/null || continue
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
        2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

cmake_is_new_enough() {
  local version
  version=$(cmake --version 2>/dev/null | sed -n 's/^cmake version \([0-9]*\.[0-9]*\).*/\1/p')
  [ -n "$version" ] && [ "$(printf '%s\n3.25\n' "$version" | sort -V | head -n 1)" = 3.25 ]
}

make_environment() {
  local python names
  if [ -n "${Torch_DIR:-}" ] && [ ! -f "$Torch_DIR/TorchConfig.cmake" ]; then
    die "Torch_DIR=$Torch_DIR holds no TorchConfig.cmake; give the folder share/cmake/Torch of a libtorch, or unset it"
  fi
  if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    python=$(find_python) ||
      die "found no Python 3.10 to 3.13 with the venv module; install python3-venv or name one in GANTRY_PYTHON"
    say "making .venv with $python"
    rm -rf .venv
    "$python" -m venv .venv || die "$python could not make .venv; install python3-venv, then run make setup again"
  fi
  names=$(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' tools/requirements.txt)
  if [ -n "${Torch_DIR:-}" ]; then
    say "using libtorch from Torch_DIR=$Torch_DIR"
    names=$(grep -v '^torch==' <<<"$names" || true)
  fi
  local newer_cmake=
  if ! cmake_is_new_enough; then newer_cmake=1; names+=$'\ncmake>=3.25,<4'; fi
  say "installing into .venv: $(tr -s ' \n' ' ' <<<"$names")"
  # shellcheck disable=SC2086 -- one argument a word is meant
  .venv/bin/python -m pip --disable-pip-version-check install --quiet $names ||
    die "pip could not install $(tr -s ' \n' ' ' <<<"$names")- check the connection to PyPI, or set Torch_DIR to a libtorch that is already here"
  if [ -n "$newer_cmake" ]; then  # the Makefile looks into .venv/newer first
    mkdir -p .venv/newer
    ln -sf ../bin/cmake ../bin/ctest .venv/newer/
  fi
}

main() {
  local lists=(tools/apt-packages.txt) stamp
  if [ "${1:-}" = --dev ]; then lists+=(tools/apt-packages-dev.txt); fi
  mkdir -p build
  exec 9>build/.setup.lock
  if command -v flock >/dev/null; then flock 9; fi
  install_packages "${lists[@]}"
  stamp=$(cat tools/requirements.txt tools/setup.sh <(printf '%s' "${Torch_DIR:-}") | cksum)
  if [ -x .venv/bin/python ] && [ "$(cat .venv/.gantry-setup 2>/dev/null)" = "$stamp" ]; then return; fi
  make_environment
  printf '%s\n' "$stamp" >.venv/.gantry-setup
  say "done"
}

main "$@"
