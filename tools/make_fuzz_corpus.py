#!/usr/bin/env python3
"""Seeds of the formats fuzz targets: small valid files and truncated, bit-flipped, oversized and overflowing variants.

Usage: tools/make_fuzz_corpus.py [fuzz/corpus]. Needs only Python's standard library; the output never changes.
"""
import json
import random
import struct
import sys
from pathlib import Path


def damaged(name, data, rng):
    """The file itself, three truncations and four bit flips."""
    yield name, data
    for part in (0.1, 0.5, 0.95):
        yield f"{name}_truncated_{int(part * 100)}", data[: int(len(data) * part)]
    for i in range(4):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield f"{name}_bitflip_{i}", bytes(flipped)


def safetensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors_seeds(rng):
    good = safetensors(
        {"__metadata__": {"format": "pt"}, "a": tensor("F32", [2, 2], 0, 16), "b": tensor("BF16", [3], 16, 22),
         "c": tensor("I64", [], 22, 30)}, bytes(range(30)))
    yield from damaged("valid", good, rng)
    yield "empty", b""
    yield "no_tensors", safetensors({})
    yield "length_max", safetensors({}, length=2**64 - 1)
    yield "length_past_end", safetensors({}, length=99_999_999)
    yield "product_overflows", safetensors({"a": tensor("F32", [2**32, 2**32, 4], 0, 0)})
    yield "bytes_overflow", safetensors({"a": tensor("F64", [2**61], 0, 0)})
    yield "size_past_int64", safetensors({"a": tensor("U8", [2**64 - 1], 0, 1)}, b"x")
    yield "offsets_past_end", safetensors({"a": tensor("U8", [2**63 - 1], 0, 2**63 - 1)}, b"x")
    yield "overlap", safetensors({"a": tensor("U8", [2], 0, 2), "b": tensor("U8", [2], 1, 3)}, b"xyz")
    yield "deep", safetensors(b"[" * 2000 + b"]" * 2000)
    yield "many_empty", safetensors({f"t{i}": tensor("U8", [0], 0, 0) for i in range(200)})


TARGETS = {"formats_safetensors": safetensors_seeds}


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "fuzz" / "corpus")
    for target, seeds in TARGETS.items():
        folder = root / target
        folder.mkdir(parents=True, exist_ok=True)
        rng = random.Random(target)
        for name, data in seeds(rng):
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
