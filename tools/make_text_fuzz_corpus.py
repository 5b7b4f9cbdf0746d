#!/usr/bin/env python3
"""Seeds of the fuzz targets text_jinja and text_shard.

Usage: tools/make_text_fuzz_corpus.py [fuzz/corpus]. Needs only Python's standard library; the seeds are the same every time.
"""
import json
import struct
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MASK = 2**64 - 1

HOSTILE = {
    "deep_parentheses": "{{ " + "(" * 4000,
    "deep_not": "{{ " + "not " * 4000 + "1 }}",
    "deep_minus": "{{ " + "-" * 4000 + "1 }}",
    "deep_blocks": "{% if 1 %}" * 1000,
    "long_sum": "{{ 1" + "+1" * 4000 + " }}",
    "long_attributes": "{{ a" + ".b" * 4000 + " }}",
    "long_filters": "{{ a" + "|upper" * 4000 + " }}",
    "doubling": "{% set n=namespace(s='x') %}{% for i in range(99) %}{% set n.s=n.s~n.s %}{% endfor %}",
    "repeat": "{{ 'x' * 99999999999 }}{{ [1] * 99999999999 }}",
    "endless_loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "growing_while_looping": "{% set l=[1] %}{% for x in l %}{% set _=l.append(x) %}{% endfor %}",
    "recursion": "{% macro m(x) %}{{ m([x]) }}{% endmacro %}{{ m(1) }}",
    "self_reference": "{% set n=namespace() %}{% set n.n=n %}{% set l=[n] %}{% set _=l.append(l) %}{{ l == l }}{{ n }}{{ l }}",
    "nested_lists": "{% set n=namespace(l=[]) %}{% for i in range(9999) %}{% set n.l=[n.l, n.l] %}{% endfor %}{{ n.l }}",
    "bound_chain": "{% set n=namespace(l=[1]) %}{% for i in range(9999) %}{% set n.l=[n.l.append] %}{% endfor %}",
    "loop_chain": "{% set n=namespace(l=[1]) %}{% for i in range(9999) %}{% for x in [n.l] %}{% set n.l=[loop] %}{% endfor %}{% endfor %}",
    "macro_chain": "{% set n=namespace(m=1) %}{% macro f() %}{% macro g() %}{% endmacro %}{% set n.m=[g, n.m] %}{% endmacro %}{% for i in range(9999) %}{{ f() }}{% endfor %}",
    "integer_edges": "{{ -9223372036854775807 - 1 }}{{ (-9223372036854775807 - 1) // -1 }}{{ (-9223372036854775807-1) % -1 }}{{ 2 ** 99 }}",
    "wide_indent": "{{ 'a' | indent(999999999) }}{{ [[[]]] | tojson(indent=999999999) }}",
    "strftime_width": "{{ strftime_now('%999999999d') }}{{ strftime_now('%E') }}{{ strftime_now('%') }}",
    "huge_range": "{{ range(-9223372036854775807, 9223372036854775807, 9223372036854775807) }}",
    "round_edges": "{{ 1e308 | round(-300) }}{{ 1.5 | round(300) }}{{ 1e300 | int }}",
    "slice_edges": "{{ 'abc'[-9223372036854775807:9223372036854775807:9223372036854775807] }}{{ [1,2][::-9223372036854775807] }}",
    "bad_utf8": b"{{ '\xff\xc3' | upper }}{{ '\xf0\x9f'[::-1] }}\xfe",
    "open_raw": "{% raw %}{{",
    "open_comment": "{#-#",
    "open_string": "{{ 'a\\",
    "bad_escape": "{{ '\\ud800\\x4' }}",
}


def mix64(value):
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def data_hash(data):
    """DataHash of gantry/text/dataset_hash.h."""
    state = [1, 2, 3, 4]
    whole = len(data) // 8
    for i in range(whole):
        word = struct.unpack_from("<Q", data, 8 * i)[0]
        product = ((state[i & 3] ^ word) * 0x9FB21C651E98DF25) & MASK
        state[i & 3] = ((product << 29) | (product >> 35)) & MASK
    pending = int.from_bytes(data[8 * whole :], "little")
    result = mix64(len(data)) ^ mix64((pending + 5) & MASK)
    for lane in state:
        result = mix64(result ^ lane)
    return result


def shard(tokens=(), starts=(0,), mask=None, width=2, counts=None, flags=None, content=None):
    if content is None:
        content = b"".join(struct.pack("<Q", start) for start in (*starts, len(tokens)))
        content += b"".join(struct.pack("<H" if width == 2 else "<I", token) for token in tokens) + (mask or b"")
    token_count, documents = counts or (len(tokens), len(starts))
    header = struct.pack("<8sIIQQQQQ", b"GTRYTOK1", 1, width, token_count, documents, 7,
                         (mask is not None) if flags is None else flags, data_hash(content))
    return header + struct.pack("<Q", data_hash(header)) + content


def shard_seeds():
    good = shard(range(20), (0, 5, 9))
    yield "valid_narrow", good
    yield "valid_wide_masked", shard(range(20), (0, 5), b"\xff\x0f\x01", 4)
    yield "empty", b""
    yield "no_tokens", shard((), ())
    yield "header_only", good[:64]
    yield "truncated", good[:-3]
    yield "trailing", good + b"x"
    yield "token_count_max", shard(range(4), counts=(2**64 - 1, 1))
    yield "token_count_wraps", shard(range(4), counts=(2**63, 1))
    yield "document_count_max", shard(range(4), counts=(4, 2**64 - 1))
    yield "document_count_wraps", shard(range(4), counts=(4, 2**61 - 1))
    yield "starts_descend", shard(range(9), (0, 7, 3))
    yield "starts_past_end", shard(range(4), (0, 2**60))
    yield "unknown_flags", shard(range(4), flags=6)
    yield "odd_width", shard(range(4), width=2, content=b"x" * 11, counts=(1, 0))
    flipped = bytearray(good)
    flipped[80] ^= 4
    yield "bitflip", bytes(flipped)


def jinja_seeds():
    for name in ("jinja_cases", "chat_cases"):
        seen = []
        for line in open(ROOT / "tests" / "data" / "text" / f"{name}.jsonl", encoding="utf-8"):
            template = json.loads(line)["template"]
            if template not in seen:
                seen.append(template)
        for i, template in enumerate(seen):
            yield f"{name}_{i:03}", template.encode()
    for name, template in HOSTILE.items():
        yield name, template if isinstance(template, bytes) else template.encode()


def main():
    corpus = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "fuzz" / "corpus")
    for target, seeds in (("text_jinja", jinja_seeds()), ("text_shard", shard_seeds())):
        (corpus / target).mkdir(parents=True, exist_ok=True)
        count = 0
        for name, data in seeds:
            (corpus / target / name).write_bytes(data)
            count += 1
        print(f"{target}: {count} seeds")


if __name__ == "__main__":
    main()
