#!/usr/bin/env python3
"""Writes a bf16 copy of a quantised GGUF file: make_bf16_gguf.py IN.gguf OUT.gguf

Matrices (the embedding too) become bf16, vectors (norms, biases) stay f32; every metadata field, the tokenizer's
included, is copied. With it llama.cpp reads the same bytes a weight as the bf16 engines it is compared with.
"""

import os
import sys


def copy_fields(reader, writer, gguf):
    for field in reader.fields.values():
        # The writer writes these itself: virtual header fields, the architecture, the kind of file.
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        sub_kind = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=sub_kind)


def copy_tensors(reader, writer, gguf, numpy):
    bf16 = gguf.GGMLQuantizationType.BF16
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        if len(tensor.shape) > 1:
            writer.add_tensor(tensor.name, gguf.quants.quantize(values, bf16), raw_dtype=bf16)
        else:
            writer.add_tensor(tensor.name, values)


def main():
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} IN.gguf OUT.gguf")
    source, target = sys.argv[1:]
    import gguf
    import numpy

    reader = gguf.GGUFReader(source)
    architecture = reader.get_field("general.architecture").contents()
    temporary = target + ".partial"
    writer = gguf.GGUFWriter(temporary, architecture)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    copy_fields(reader, writer, gguf)
    copy_tensors(reader, writer, gguf, numpy)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(temporary, target)
    print(f"{target}: {len(reader.tensors)} tensors, {os.path.getsize(target)} bytes")


if __name__ == "__main__":
    main()
