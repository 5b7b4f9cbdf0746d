#!/usr/bin/env python3
"""Compares files and functions with the size budget: a file over 500 lines fails; a function over 60 lines (120 in
kernels) is a warning, since a long one may state its reason."""
import argparse
import pathlib
import re
import sys

FILE_LIMIT = 500
FUNCTION_LIMIT = 60
KERNEL_LIMIT = 120
TREES = ["gantry", "python", "tests", "bench", "fuzz", "tools", "examples"]
SUFFIXES = {".h", ".cpp", ".cu", ".cuh", ".py", ".sh"}
CXX = {".h", ".cpp", ".cu", ".cuh"}

# Comments, strings and character literals, whose braces do not count. Digit separators (1'000) are no literals.
NOISE = re.compile(
    r'R"([^(\s]*)\(.*?\)\1"|//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)
NOT_A_FUNCTION = re.compile(r"\b(namespace|class|struct|enum|union)\b[^()]*$|\bextern\s*$|=\s*$")


def blank(match):
    """Keeps the line breaks of what is cut out, so that line numbers stay right."""
    return "".join(character if character == "\n" else " " for character in match.group(0))


def functions(text):
    """(line, lines) of every top-level function body, found by counting braces."""
    text = NOISE.sub(blank, text)
    text = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", blank, text, flags=re.MULTILINE)
    stack, head, line, found = [], "", 1, []
    for character in text:
        if character == "\n":
            line += 1
        if character == "{":
            inside = any(kind == "function" for kind, _ in stack)
            is_function = not inside and ")" in head and not NOT_A_FUNCTION.search(head)
            stack.append(("function" if is_function else "other", line))
            head = ""
        elif character == "}":
            if stack:
                kind, start = stack.pop()
                if kind == "function":
                    found.append((start, line - start + 1))
            head = ""
        elif character == ";":
            head = ""
        else:
            head += character
    return found


def check(root):
    """(errors, warnings, number of files) under a repository root."""
    errors, warnings, count = [], [], 0
    for tree in TREES:
        for path in sorted((root / tree).rglob("*")):
            if path.suffix not in SUFFIXES or not path.is_file():
                continue
            count += 1
            name = path.relative_to(root).as_posix()
            text = path.read_text(encoding="utf-8", errors="replace")
            lines = text.count("\n")
            if lines > FILE_LIMIT:
                errors.append(f"{name}: {lines} lines, at most {FILE_LIMIT}; split it")
            if path.suffix not in CXX:
                continue
            limit = KERNEL_LIMIT if name.startswith("gantry/kernels/") else FUNCTION_LIMIT
            for start, length in functions(text):
                if length > limit:
                    warnings.append(f"{name}:{start}: warning: function of {length} lines, more than {limit}")
    return errors, warnings, count


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=pathlib.Path, nargs="?", default=pathlib.Path(__file__).resolve().parent.parent)
    errors, warnings, count = check(parser.parse_args().root)
    if count == 0:
        sys.exit("sizes: no source file found")
    for sentence in errors + warnings:
        print(sentence)
    print(f"sizes: {count} files, {len(errors)} too long, {len(warnings)} long functions")
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
