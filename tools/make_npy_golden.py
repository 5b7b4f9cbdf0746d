#!/usr/bin/env python3
"""Files that NumPy itself writes, for the npy and npz tests: every element type, both byte orders, both memory orders.

Usage: tools/make_npy_golden.py [tests/data]. Each array is arange(24) - 4 (mod 256 for unsigned) in shape (2, 3, 4).
"""
import sys
from pathlib import Path

import numpy as np


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "tests" / "data")
    base = (np.arange(24) - 4).reshape(2, 3, 4)
    arrays = {code: base.astype(code) for code in ("i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", ">i2", ">f4", ">f8", ">c8")}
    arrays |= {code: (base % 256).astype(code) for code in ("u1", "u2", "u4", "u8", ">u8")}
    arrays |= {"bool": base % 2 == 0, "fortran": np.asfortranarray(base.astype("f4")),
               "scalar": np.array(2.5), "empty": np.zeros((0, 3), "f4"), "vector": np.arange(5, dtype="i4"),
               "text": np.array(["a", "bc"]), "structured": np.zeros(2, [("a", "f4"), ("b", "i4")]),
               "object": np.array([None, 1], dtype=object)}
    arrays = {name.replace(">", "big_"): array for name, array in arrays.items()}
    np.savez_compressed(folder / "numpy_deflated.npz", **arrays)
    np.savez(folder / "numpy_stored.npz", **{name: arrays[name] for name in ("f4", "big_f8", "fortran")})
    with open(folder / "numpy_v3.npy", "wb") as file:
        np.lib.format.write_array(file, base.astype("f8"), version=(3, 0))


if __name__ == "__main__":
    main()
