#!/usr/bin/env python3
"""Seeds of the formats fuzz targets: small valid files and truncated, bit-flipped, oversized and overflowing variants.

Usage: tools/make_fuzz_corpus.py [fuzz/corpus]. Needs only Python's standard library; the seeds are the same every time.
"""
import io
import json
import random
import struct
import sys
import zipfile
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


def gguf_text(text):
    return struct.pack("<Q", len(text)) + text.encode()


def gguf_tensor(name, ne, kind, offset):
    return gguf_text(name) + struct.pack(f"<I{len(ne)}QIQ", len(ne), *ne, kind, offset)


def gguf(entries=(), tensors=(), data=b"", counts=None, version=3):
    tensor_count, entry_count = counts or (len(tensors), len(entries))
    out = b"GGUF" + struct.pack("<IQQ", version, tensor_count, entry_count) + b"".join(entries) + b"".join(tensors)
    return out + bytes(-len(out) % 32) + data


def gguf_entry(key, kind, value):
    return gguf_text(key) + struct.pack("<I", kind) + value


GGUF_BLOCKS = {"F32": (0, 4, 4), "F16": (1, 4, 2), "BF16": (30, 4, 2), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20),
               "Q5_0": (6, 32, 22), "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144),
               "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210), "IQ4_NL": (20, 32, 18)}


def gguf_seeds(rng):
    array = struct.pack("<IQ", 8, 2) + gguf_text("a") + gguf_text("bc")
    entries = [gguf_entry("general.architecture", 8, gguf_text("llama")), gguf_entry("tokenizer.ggml.tokens", 9, array),
               gguf_entry("general.alignment", 4, struct.pack("<I", 32)), gguf_entry("k", 10, struct.pack("<Q", 7)),
               gguf_entry("b", 7, b"\1"), gguf_entry("f", 9, struct.pack("<IQ2f", 6, 2, 1, 2))]
    for name, (kind, elements, size) in GGUF_BLOCKS.items():
        count = elements if size <= 4 else 1
        yield f"valid_{name}", gguf((), [gguf_tensor("x", [elements], kind, 0)], rng.randbytes(count * size))
    both = [gguf_tensor("q", [32, 2], 2, 0), gguf_tensor("f", [2, 3], 0, 64)]
    yield from damaged("valid", gguf(entries, both, rng.randbytes(64 + 24)), rng)
    yield "version2", gguf(entries, version=2)
    yield "a_billion_tensors", gguf(counts=(10**9, 0))
    yield "count_max", gguf(counts=(2**64 - 1, 2**64 - 1))
    yield "string_length_max", gguf([gguf_entry("k", 8, struct.pack("<Q", 2**64 - 1))])
    yield "array_length_max", gguf([gguf_entry("k", 9, struct.pack("<IQ", 12, 2**61))])
    yield "nested_array", gguf([gguf_entry("k", 9, struct.pack("<IQ", 9, 1))])
    yield "product_overflows", gguf((), [gguf_tensor("x", [2**31, 2**31, 2**31], 0, 0)], bytes(32))
    yield "bytes_overflow", gguf((), [gguf_tensor("x", [2**62], 0, 0)], bytes(32))
    yield "offset_overflows", gguf((), [gguf_tensor("x", [1], 0, 2**64 - 32)], bytes(32))
    yield "alignment_zero", gguf([gguf_entry("general.alignment", 4, bytes(4))])


def npy(shape, data, descr="<f4", major=1, fortran=False):
    text = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + bytes([major, 0]) + struct.pack("<H" if major == 1 else "<I", len(text)) + text + data


def npz(method, members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()


def npy_seeds(rng):
    good = npy("(2, 3)", bytes(range(24)), fortran=True)
    yield from damaged("valid", good, rng)
    yield "version3", npy("()", bytes(8), ">f8", major=3)
    yield "product_overflows", npy("(4294967296, 4294967296)", bytes(4))
    yield "size_past_int64", npy("(99999999999999999999,)", bytes(4))
    yield "header_length_max", b"\x93NUMPY\2\0\xff\xff\xff\xff{}"
    yield "bool_bytes", npy("(3,)", b"\0\2\xff", "|b1")
    members = {"a.npy": good, "b.npy": npy("(1,)", bytes(8), "<i8"), "note.txt": b"x"}
    stored = npz(zipfile.ZIP_STORED, members)
    yield from damaged("npz_stored", stored, rng)
    yield from damaged("npz_deflated", npz(zipfile.ZIP_DEFLATED, members), rng)
    central = stored.index(b"PK\1\2")
    yield "npz_size_max", stored[: central + 20] + b"\xff" * 8 + stored[central + 28 :]
    yield "npz_offset_max", stored[: central + 42] + b"\xff" * 4 + stored[central + 46 :]
    yield "npz_members_max", stored[:-12] + b"\xfe\xff" + stored[-10:]
    zip64 = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, 2**60, 2**60, 2**60, 2**64 - 8)
    locator = struct.pack("<IIQI", 0x07064B50, 0, len(stored) - 22, 1)
    yield "npz_zip64_max", stored[:-22] + zip64 + locator + stored[-22:]


def jsonl_seeds(rng):
    good = b'\xef\xbb\xbf{"text": "a\\u00e9", "n": [1, -2.5e3, null]}\r\n\n"\xd0\xb6"\ntrue'
    yield from damaged("valid", good, rng)
    yield "empty", b""
    yield "blank", b"\n \r\n\t\n"
    yield "deep", b"[" * 3000
    yield "deep_closed", b"[" * 300 + b"]" * 300
    yield "number_overflow", b"1e999\n99999999999999999999999\n"
    yield "bad_utf8", b'"\xff\xc3"\n"\\ud800"\n'
    yield "long_line", b'"' + b"x" * 70000 + b'"\n'


TARGETS = {"formats_gguf": gguf_seeds, "formats_jsonl": jsonl_seeds, "formats_npy": npy_seeds,
           "formats_safetensors": safetensors_seeds}


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
