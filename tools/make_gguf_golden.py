#!/usr/bin/env python3
"""Random blocks of every GGUF type that Gantry reads, with the fp32 values that the `gguf` package gives for them.

Usage: tools/make_gguf_golden.py [tests/data/gguf_blocks.safetensors]. Needs `pip install gguf numpy` (made with gguf 0.19.0).
The file holds `<type>.blocks` (U8, [rows, bytes]) and `<type>.values` (F32, [rows, elements]).
"""
import json
import struct
import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

# Byte offsets of the half-precision scales of a block; the rest is random bits.
HALF_OFFSETS = {T.F16: [0], T.BF16: [], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
                T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}
ROWS = 8
BLOCKS_A_ROW = 2
# Beside random scales: zero, negative zero, a subnormal, the largest finite ones.
SPECIAL_SCALES = [0.0, -0.0, 6e-8, -3e-5, 65504.0, -65504.0]


def random_blocks(kind, rng):
    elements, size = GGML_QUANT_SIZES[kind]
    blocks_a_row = BLOCKS_A_ROW if elements > 1 else 64
    blocks = rng.integers(0, 256, size=(ROWS * blocks_a_row, size), dtype=np.uint8)
    for offset in HALF_OFFSETS[kind]:
        scales = rng.normal(scale=0.05, size=len(blocks)).astype(np.float16)
        scales[: len(SPECIAL_SCALES)] = rng.permutation(SPECIAL_SCALES).astype(np.float16)
        blocks[:, offset : offset + 2] = scales.view(np.uint8).reshape(-1, 2)
    if kind == T.BF16:
        blocks = np.ascontiguousarray((rng.normal(size=len(blocks)).astype(np.float32).view(np.uint32) >> 16)
                                      .astype(np.uint16)).view(np.uint8)
    return blocks.reshape(ROWS, blocks_a_row * size)


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, array in tensors.items():
        dtype = {"uint8": "U8", "float32": "F32"}[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(a.tobytes() for a in tensors.values()))


def main():
    here = Path(__file__).parent.parent
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else here / "tests" / "data" / "gguf_blocks.safetensors"
    rng = np.random.default_rng(20250101)
    blocks, values = {}, {}
    for kind in HALF_OFFSETS:
        blocks[f"{kind.name}.blocks"] = random_blocks(kind, rng)
        values[f"{kind.name}.values"] = np.ascontiguousarray(
            dequantize(blocks[f"{kind.name}.blocks"], kind), dtype=np.float32)
        assert np.isfinite(values[f"{kind.name}.values"]).all(), kind
    write_safetensors(path, values | blocks)


if __name__ == "__main__":
    main()
