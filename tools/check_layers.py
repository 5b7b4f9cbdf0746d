#!/usr/bin/env python3
"""Compares every #include with the module table of docs/DESIGN.md.

Rules: a module includes what MAY_INCLUDE names and, through it, what that includes; torch-free parts reach no torch header,
not even through a header of ours; nothing includes cli, tests, bench or python; includes give the full path; headers start with
#pragma once. A new arrow is a reviewed change of MAY_INCLUDE and of docs/DESIGN.md.
"""
import argparse
import collections
import pathlib
import re
import sys

# "module/part" names a single header or folder of a module (its types); the rest of that module stays out of reach.
MAY_INCLUDE = {
    "base": [],
    "formats": ["base"],
    "text": ["base", "formats"],
    "spec": ["base", "formats"],
    "symbolic": ["base"],
    "cost": ["symbolic", "spec"],
    "plan": ["cost"],
    "simulate": ["plan"],
    "tensor": ["base", "formats"],
    "kernels": ["tensor"],
    "comm": ["tensor"],
    "layers": ["kernels", "comm", "spec"],
    "models": ["layers", "spec", "text"],
    "train": ["models", "plan/types"],
    "measure": ["models", "cost"],
    "quant": ["models"],
    "serve": ["models", "quant", "cost", "plan/types"],
    "grasp": ["layers", "quant", "formats"],
    "cli": ["simulate", "train", "measure", "serve", "grasp"],
}
# Not even through other modules.
NEVER = {"grasp": ["comm", "plan", "serve"]}

# Parts that no torch header may reach: modules, and patterns of files (relative to gantry/).
TORCH_FREE = [
    r"(base|formats|text|spec|symbolic|cost|plan|simulate)/.*",
    r"serve/scheduler.*",
    r"grasp/geometry.*",
    r"kernels/.*_cpu\.cpp",
    r"kernels/.*_cuda\.(cu|cuh)",
    r"kernels/.*_raw\.h",
    r"kernels/(cpu|device)/.*",
]
TORCH_HEADER = re.compile(r"(torch|ATen|c10|caffe2)/")
CUDA_HEADER = re.compile(r"(cuda|cublas|cudnn|nccl|cooperative_groups|cub/|thrust/)")
CUDA_PLACES = re.compile(r"(kernels|comm)/.*|tensor/.*cuda.*")
TREES = ["gantry", "python", "tests", "bench", "fuzz"]
SOURCES = {".h", ".cpp", ".cu", ".cuh"}
HEADERS = {".h", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def reachable(module):
    """The entries of MAY_INCLUDE that a module may use, directly or through others, itself included."""
    seen, queue = {module}, collections.deque(MAY_INCLUDE[module])
    while queue:
        entry = queue.popleft()
        if entry not in seen:
            seen.add(entry)
            # Types are given alone: whoever may see plan/types does not thereby see what plan sees.
            queue.extend(MAY_INCLUDE.get(entry, []))
    return seen - set(NEVER.get(module, []))


def allowed(target, entries):
    """Whether the header `target` (module/file.h) lies in one of the entries."""
    stem = target.rsplit(".", 1)[0]
    parts = stem.split("/")
    return any("/".join(parts[:count]) in entries for count in range(1, len(parts) + 1))


class Tree:
    """All sources under a root, with the includes of each."""

    def __init__(self, root):
        self.includes = {}
        self.violations = []
        for tree in TREES:
            for path in sorted((root / tree).rglob("*")):
                if path.suffix in SOURCES and path.is_file():
                    self._read(path, path.relative_to(root).as_posix())

    def _read(self, path, name):
        text = path.read_text(encoding="utf-8", errors="replace")
        self.includes[name] = [(kind, target) for kind, target in INCLUDE.findall(text)]
        if path.suffix in HEADERS and "#pragma once" not in text:
            self.report(name, "a header without #pragma once")

    def report(self, name, what):
        self.violations.append(f"{name}: {what}")

    def torch_chain(self, name):
        """The shortest chain of includes from a file to a torch header, or None."""
        queue, seen = collections.deque([[name]]), {name}
        while queue:
            chain = queue.popleft()
            for _, target in self.includes.get(chain[-1], []):
                if TORCH_HEADER.match(target):
                    return chain + [target]
                if target in self.includes and target not in seen:
                    seen.add(target)
                    queue.append(chain + [target])
        return None


def check_paths(tree, name):
    local = name.split("/")[0]
    for kind, target in tree.includes[name]:
        first = target.split("/")[0]
        # Files that CMake generates have no folder; only tests and fuzzing use any.
        if kind == '"' and first not in TREES and not (target.endswith(".inc") and local != "gantry"):
            tree.report(name, f'"{target}" is not a full path; write "gantry/<module>/<file>.h"')
        if first in ("tests", "bench", "python", "fuzz") and first != local:
            tree.report(name, f"{target} may not be included from outside {first}/")
        if target.startswith("gantry/cli/") and not name.startswith(("gantry/cli/", "tests/cli/", "bench/cli/")):
            tree.report(name, f"{target}: nothing includes cli")


def check_module(tree, name):
    inner = name.removeprefix("gantry/")
    if "/" not in inner:
        return
    module = inner.split("/")[0]
    if module not in MAY_INCLUDE:
        tree.report(name, f"module '{module}' is not in the table of tools/check_layers.py")
        return
    entries = reachable(module)
    for _, target in tree.includes[name]:
        if target.startswith("gantry/") and not allowed(target.removeprefix("gantry/"), entries):
            tree.report(name, f"{module} may not include {target}")
        if "/experimental/" in target and "/experimental/" not in name:
            tree.report(name, f"{target}: stable code may not include experimental code")
        if CUDA_HEADER.match(target) and not CUDA_PLACES.fullmatch(inner):
            tree.report(name, f"CUDA header {target} outside kernels, comm and tensor's CUDA files")
    if any(re.fullmatch(pattern, inner) for pattern in TORCH_FREE):
        chain = tree.torch_chain(name)
        if chain:
            tree.report(name, "torch-free, but reaches a torch header: " + " -> ".join(chain))


def check(root):
    """All violations under a repository root, as sentences."""
    tree = Tree(root)
    for name in tree.includes:
        check_paths(tree, name)
        if name.startswith("gantry/"):
            check_module(tree, name)
    return tree.violations, len(tree.includes)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=pathlib.Path, nargs="?", default=pathlib.Path(__file__).resolve().parent.parent)
    violations, files = check(parser.parse_args().root)
    if files == 0:
        sys.exit("layers: no source file found")
    for violation in violations:
        print(violation)
    print(f"layers: {files} files, {len(violations)} violations")
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
