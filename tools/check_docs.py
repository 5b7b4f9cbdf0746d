#!/usr/bin/env python3
"""Compares the documents with the tree: every relative link leads somewhere, and every environment variable, system
package, build option and make target that exists is described - and the other way round."""
import argparse
import pathlib
import re
import sys

SKIPPED = {".git", "build", ".venv", ".venv-bench", "demo-out", "dist"}
CODE_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
VARIABLE = re.compile(r"\bGANTRY_[A-Z0-9_]+\b")
# How the sources and scripts read the environment.
READS = re.compile(
    r'(?:\benv(?:_int)?\(|getenv\(|environ(?:\.get)?[(\[]\s*)\s*"(GANTRY_[A-Z0-9_]+)"|\$\{(GANTRY_[A-Z0-9_]+)[:}]')


def documents(root):
    return [path for path in sorted(root.rglob("*.md")) if not SKIPPED & set(path.relative_to(root).parts)]


def sources(root, trees, suffixes):
    for tree in trees:
        for path in sorted((root / tree).rglob("*")):
            if path.suffix in suffixes and path.is_file():
                yield path


def anchors(text):
    """GitHub's anchors of the headings."""
    found = set()
    for heading in re.findall(r"^#+ +(.+?) *$", CODE_FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)).lower()
        found.add(plain.strip().replace(" ", "-"))
    return found


def check_links(root):
    for document in documents(root):
        text = document.read_text(encoding="utf-8")
        for target in LINK.findall(CODE_FENCE.sub("", text)):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            place = (document.parent / path).resolve() if path else document
            name = document.relative_to(root).as_posix()
            if not place.exists():
                yield f"{name}: link to {target}: there is no such file"
            elif anchor and place.suffix == ".md" and anchor not in anchors(place.read_text(encoding="utf-8")):
                yield f"{name}: link to {target}: there is no such heading"


def both_ways(described, existing, page, kind):
    """Sentences for what only one of the two sets holds."""
    for name in sorted(existing - described):
        yield f"{page}: {kind} {name} is not described"
    for name in sorted(described - existing):
        yield f"{page}: {kind} {name} is described but does not exist"


def read(path):
    return path.read_text(encoding="utf-8") if path.exists() else ""


def table_names(text, pattern):
    """Names in the first column of the tables of a page."""
    return {name for row in re.findall(r"^\| *([^|]+)\|", text, re.MULTILINE) for name in re.findall(pattern, row)}


def check_variables(root):
    existing = set()
    for path in sources(root, ["gantry", "python", "tools", "bench", "examples"], {".h", ".cpp", ".cu", ".py", ".sh"}):
        for groups in READS.findall(path.read_text(encoding="utf-8", errors="replace")):
            existing |= {name for name in groups if name}
    # Variables that only tests and the Makefile use.
    for path in [*sources(root, ["tests"], {".h", ".cpp"}), root / "Makefile"]:
        text = read(path)
        existing |= {name for groups in READS.findall(text) for name in groups if name and "TEST" not in name}
        existing |= set(re.findall(r"^export (GANTRY_[A-Z0-9_]+)", text, re.MULTILINE))
    described = table_names(read(root / "docs/environment.md"), VARIABLE)
    yield from both_ways(described, existing, "docs/environment.md", "variable")


def package_names(path):
    lines = (line.split("#")[0].strip().lstrip("?") for line in read(path).splitlines())
    return {re.split(r"[=<>]", line)[0] for line in lines if line}


def check_packages(root):
    existing = package_names(root / "tools/apt-packages.txt") | package_names(root / "tools/apt-packages-dev.txt")
    existing |= package_names(root / "tools/requirements.txt")
    described = table_names(read(root / "docs/dependencies.md"), r"`([a-z0-9+.-]+)`")
    yield from both_ways(described, existing, "docs/dependencies.md", "package")


def check_build_options(root):
    text = read(root / "cmake/GantryOptions.cmake")
    existing = set(re.findall(r"^option\((\w+)", text, re.MULTILINE))
    existing |= set(re.findall(r"^set\((GANTRY_\w+) .*CACHE", text, re.MULTILINE))
    described = table_names(read(root / "CONTRIBUTING.md"), VARIABLE)
    yield from both_ways(described, existing, "CONTRIBUTING.md", "build option")


def check_targets(root):
    """`make X` in the documents names a target of the Makefile."""
    targets = {name for names in re.findall(r"^([a-z][a-z -]*):(?!=)", read(root / "Makefile"), re.MULTILINE)
               for name in names.split()}
    for document in documents(root):
        for target in re.findall(r"`make ([a-z-]+)", document.read_text(encoding="utf-8")):
            if target not in targets:
                yield f"{document.relative_to(root).as_posix()}: `make {target}`: the Makefile has no such target"


def check_verb_options(root):
    """Options that documents give to a verb exist somewhere in its sources (only verbs that are there)."""
    known = {"--help", "--json", "--config"}
    for path in sources(root, ["gantry"], {".h", ".cpp"}):
        text = path.read_text(encoding="utf-8", errors="replace")
        known |= {"--" + name.replace("_", "-") for name in re.findall(r'\bvisit\w*\(\s*"(\w+)"', text)}
        if "/cli/" in path.as_posix():
            known |= set(re.findall(r'(--[a-z][a-z0-9-]*)', text))
    for document in documents(root):
        text = document.read_text(encoding="utf-8").replace("\\\n", " ")
        for verb, rest in re.findall(r"\bgantry ([a-z]+)\b([^\n`|]*)", text):
            if not list((root / "gantry/cli").glob(f"*{verb}*.cpp")):
                continue
            for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", rest):
                if option not in known:
                    yield f"{document.relative_to(root).as_posix()}: gantry {verb} has no option {option}"


CHECKS = [check_links, check_variables, check_packages, check_build_options, check_targets, check_verb_options]


def check(root):
    """All faults of the documents under a repository root, as sentences."""
    return [fault for function in CHECKS for fault in function(root)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=pathlib.Path, nargs="?", default=pathlib.Path(__file__).resolve().parent.parent)
    root = parser.parse_args().root.resolve()
    faults = check(root)
    for fault in faults:
        print(fault)
    print(f"docs: {len(documents(root))} pages, {len(faults)} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
