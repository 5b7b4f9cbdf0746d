#!/usr/bin/env python3
"""Writes the shipped hardware profiles, profiles/*.json (format: docs/plan.md).

Usage: tools/make_profiles.py [--data ../shared/data] [--fit BINARY]

Operators come from Mist's measurements on an L4 (<data>/mist-l4/opdb_l4), links and interference factors from the
tables that Mist fitted (EuroSys '25 and its released code), peaks from NVIDIA's data sheets. `--fit` names the program
gantry_fit_interference (a build target of that name), which fits the factors of "l4" and "a100-40g" to <data>/mist-*/overlap_measurements.json anew;
without it those profiles keep the sets that their files hold. Needs only Python's standard library.
"""
import argparse
import json
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GIB = 2**30
BIT_PER_S = 1e9 / 8 / GIB  # GiB/s of one Gbit/s
SETS = ["CGHO", "CGH", "CGO", "CHO", "GHO", "CG", "CH", "CO", "GH", "GO", "HO"]
SHAPE = re.compile(r"'(\w+)': TensorSpec\(shape=\(([\d, ]+)\)")
DTYPES = {"torch.float16": "fp16"}

# All-gather links: (devices per node, nodes): (GiB/s, latency in s).
L4_PLAN_LINKS = {
    (2, 1): (2.964, .0001), (4, 1): (4.1635, .0004), (8, 1): (4.6832, .0003),
    (1, 2): (.4895, .0045), (2, 2): (.9791, .0076), (4, 2): (1.7183, 0), (8, 2): (3.3215, .0013),
    (1, 4): (.4609, .0102), (2, 4): (.9195, .0008), (4, 4): (1.6759, .0045), (8, 4): (2.9659, .003),
}
L4_OVERLAP_LINKS = {(2, 1): (2.995, .0004), (4, 1): (4.1604, .0003), (8, 1): (4.6325, .0005)}
A100_LINKS = {
    (2, 1): (139.0363, .0001), (4, 1): (192.6217, .0004), (8, 1): (210.306, .0004),
    (1, 2): (1.2972, .0015), (2, 2): (2.6049, .0015), (4, 2): (5.4178, .0014), (8, 2): (10.7032, .001),
    (1, 4): (1.2526, .002), (2, 4): (2.4864, .0021), (4, 4): (5.2995, .0022), (8, 4): (10.6044, .0019),
}
# Host copies: in, out.
L4_PLAN_COPIES = ((5.7546, .0004), (6.1252, .0004))
L4_OVERLAP_COPIES = ((4.1353, .0003), (3.9305, .0006))
A100_COPIES = ((5.3645, .0003), (5.8471, .0002))

# Slowdowns in the order of SETS, a letter at a time.
L4_PLAN_FACTORS = [
    18.9356, 1.2639, 50.0, 1.6046, 2.0865, 1.0009, 2.393, 2.4146, 1.0869, 2.6637, 1.9381, 3.2653, 1.0, 1.234, 50.0,
    1.6883, 1.1676, 1.0, 1.0152, 1.0005, 1.0179, 1.0022, 1.0, 2.1383, 1.078, 2.438, 2.4327, 1.0974]
L4_OVERLAP_FACTORS = [
    10.3312, 7.6785, 4.0921, 2.1695, 2.6942, 3.1015, 1.9612, 2.2752, 2.7452, 2.3535, 6.6221, 2.5708, 2.8219, 4.4773,
    2.7195, 3.0124, 1.2946, 1.0224, 1.973, 1.982, 1.9532, 1.9653, 2.4663, 1.5854, 1.3876, 2.8578, 1.9576, 1.9656]
A100_FACTORS = [
    1.307, 2.6325, 2.4097, 2.5898, 1.2264, 2.8078, 1.466, 1.3202, 2.2295, 1.932, 1.0309, 1.9929, 1.0438, 5.4986,
    1.2915, 1.7303, 1.2856, 1.0393, 1.0081, 1.0099, 1.0125, 1.0251, 1.5508, 1.0972, 1.1336, 1.2723, 1.5186, 1.2665]


def read_shapes(key):
    """Shapes of the tensors in a database key, by argument name."""
    signature = key.split("bounded_signature=", 1)[1]
    return {name: [int(size) for size in shape.split(",") if size.strip()] for name, shape in SHAPE.findall(signature)}


def count(shape):
    total = 1
    for size in shape:
        total *= size
    return total


def attention_sizes(batch, heads, sequence, head_dim):
    return {"batch": batch, "heads": heads, "kv_heads": heads, "sequence": sequence, "head_dim": head_dim}


def batched_heads(shape, heads=16, head_dim=128):
    """Sizes of attention from (batch * heads, sequence, ...); the database holds one model only."""
    return attention_sizes(shape[0] // heads, heads, shape[1], head_dim)


def linear(shapes, _key):
    x, weight = shapes["x"], shapes["weight"]
    return "linear", {"rows": count(x[:-1]), "in": weight[1], "out": weight[0]}


def norm(shapes, _key):
    return "norm", {"rows": count(shapes["x"][:-1]), "width": shapes["x"][-1]}


def elementwise(op, argument):
    return lambda shapes, _key: (op, {"elements": count(shapes[argument])})


def heads_of(op, argument):
    return lambda shapes, _key: (op, batched_heads(shapes[argument]))


def flash(shapes, _key):
    batch, sequence, _three, heads, head_dim = shapes["qkv"]
    return "attention_flash", attention_sizes(batch, heads, sequence, head_dim)


def attention_dropout(shapes, _key):
    batch, heads, sequence, _sequence = shapes["input"]
    return "attention_dropout", attention_sizes(batch, heads, sequence, 128)


def transpose(shapes, key):
    """1: (batch, sequence, heads, dim) to heads first; 2: keys, last two axes; 3: heads first back to sequence first."""
    batch, second, third, head_dim = shapes["input"]
    if "'dim0': 2" in key:
        return "attention_transpose_2", attention_sizes(batch, second, third, head_dim)
    if second > third:
        return "attention_transpose_1", attention_sizes(batch, third, second, head_dim)
    return "attention_transpose_3", attention_sizes(batch, second, third, head_dim)


def embedding(shapes, key):
    vocab = int(re.search(r"'num_embeddings': (\d+)", key).group(1))
    width = int(re.search(r"'embedding_dim': (\d+)", key).group(1))
    return "embedding", {"rows": count(shapes["input"]), "width": width, "vocab": vocab}


def cross_entropy(shapes, _key):
    rows, vocab = shapes["vocab_parallel_logits"]
    return "cross_entropy", {"rows": rows, "vocab": vocab}


def cast(shapes, _key):
    return "cast", {"rows": count(shapes["self"][:-1]), "vocab": shapes["self"][-1]}


CONVERTERS = {
    "mist.modules.layer_norm.layer_norm": norm,
    "mist.modules.fused_dense.fused_dense_func": linear,
    "torch._C._nn.gelu": elementwise("activation", "input"),
    "_operator.add": elementwise("residual_add", "a"),
    # A block of Mist's GPT drops twice, once by the module and once by the function; both were measured.
    "torch.nn.modules.dropout.Dropout": elementwise("dropout", "input"),
    "torch.nn.functional.dropout": elementwise("dropout_functional", "input"),
    "mist.modules.flash_attn.flash_attn_qkvpacked_func": flash,
    "torch.baddbmm": heads_of("attention_scores", "input"),
    "mist.modules.fused_softmax.scaled_upper_triang_masked_softmax_fn": heads_of("attention_softmax", "inputs"),
    "torch.bmm": heads_of("attention_values", "input"),
    "torch.nn.modules.linear.Identity": attention_dropout,
    "torch._C._TensorBase.transpose": transpose,
    "mist.modules.embedding.VocabParallelEmbedding": embedding,
    "mist.modules.losses._vocab_parallel_cross_entropy": cross_entropy,
    "torch._C._TensorBase.mean": lambda shapes, _key: ("mean", {"rows": shapes["input"][0]}),
    "torch._C._TensorBase.half": cast,
    "torch.add": elementwise("accumulate", "input"),
    # Views: Mist's planner does not price them.
    "torch._C._TensorBase.unbind": None,
    "mist.utils.memory._make_viewless_tensor": None,
}


def operators(folder):
    rows = []
    files = {path.stem: path for path in folder.glob("*.json")}
    if set(files) != set(CONVERTERS):
        raise SystemExit(f"{folder}: expected the files of {sorted(set(CONVERTERS) ^ set(files))} to be there or not")
    for name, path in sorted(files.items()):
        for key, value in json.loads(path.read_text()).items():
            if CONVERTERS[name] is None:
                continue
            op, sizes = CONVERTERS[name](read_shapes(key), key)
            dtype = DTYPES[re.findall(r"torch\.float\d+", key)[-1]]
            backward = 0 if op == "accumulate" else value["bwd"][0]
            rows.append({"op": op, "dtype": dtype, "sizes": sizes, "forward_s": value["fwd"][0], "backward_s": backward})
    rows.sort(key=lambda row: (row["op"], list(row["sizes"].values())))
    return rows


def link(pair, provenance):
    return {"gib_per_s": pair[0], "latency_s": pair[1], "provenance": provenance}


def links(table, provenance):
    ordered = sorted(table.items(), key=lambda item: (item[0][1], item[0][0]))
    return [{"per_node": a, "nodes": e, **link(pair, provenance)} for (a, e), pair in ordered]


def copies(pair, provenance):
    return {"in": link(pair[0], provenance), "out": link(pair[1], provenance)}


def factor_set(values):
    values, result = list(values), {}
    for name in SETS:
        result[name], values = values[:len(name)], values[len(name):]
    assert not values
    return result


def shared_factors(values):
    return [{"per_node": 0, "nodes": 0, "factors": factor_set(values)}]


def scaled_a100_links(nvlink, node_gbit_per_s):
    """NVLink as efficient as on A100 (`nvlink`: times its bandwidth); between nodes 70 % of the network, shared evenly
    by the eight devices of a node."""
    table = {(a, 1): (round(A100_LINKS[a, 1][0] * nvlink, 4), A100_LINKS[a, 1][1]) for a in (2, 4, 8)}
    for nodes in (2, 4):
        for a in (1, 2, 4, 8):
            table[a, nodes] = (round(.7 * node_gbit_per_s * BIT_PER_S * a / 8, 4), A100_LINKS[a, nodes][1])
    return table


def times(pairs, factor):
    return tuple((round(rate * factor, 4), latency) for rate, latency in pairs)


MIST = "Mist (EuroSys '25, arXiv 2503.19050), released code at d69e530 (Apache-2.0)"
A100_INTERFERENCE = "interference: Mist's factors of A100-40GB, not measured on this device"
DEVICES = {
    "l4": dict(device="NVIDIA L4 24GB", device_memory_bytes=int(22.488 * GIB), memory_bytes_per_s=300e9,
               matrix_flops_per_s={"bf16": 121e12, "fp16": 121e12, "fp32": 30.3e12}),
    "a100-40g": dict(device="NVIDIA A100-SXM4-40GB", device_memory_bytes=40 * GIB, memory_bytes_per_s=1555e9,
                     matrix_flops_per_s={"bf16": 312e12, "fp16": 312e12, "fp32": 19.5e12}),
    "a100-80g": dict(device="NVIDIA A100-SXM4-80GB", device_memory_bytes=78 * GIB, memory_bytes_per_s=2039e9,
                     matrix_flops_per_s={"bf16": 312e12, "fp16": 312e12, "fp32": 19.5e12}),
    "h100": dict(device="NVIDIA H100-SXM5-80GB", device_memory_bytes=78 * GIB, memory_bytes_per_s=3350e9,
                 matrix_flops_per_s={"bf16": 989.4e12, "fp16": 989.4e12, "fp32": 66.9e12}),
    "a10": dict(device="NVIDIA A10 24GB", device_memory_bytes=int(24e9), memory_bytes_per_s=600e9,
                matrix_flops_per_s={"bf16": 125e12, "fp16": 125e12, "fp32": 31.2e12}),
}


def profile(name, device, source, table, host, provenance, interference, rows=()):
    return {"schema": 1, "name": name, "device": DEVICES[device]["device"], "source": source,
            **{key: value for key, value in DEVICES[device].items() if key != "device"},
            "copies": copies(host, provenance), "collectives": links(table, provenance),
            "interference": interference, "operators": list(rows)}


def measured_profiles(rows, l4_fit, a100_fit):
    clocks = "L4 at clocks 6251/1050 MHz, GCP, 8 a node"
    a100 = f"{MIST}: A100-40GB with NVLink, 8 a node; operators: roofline of NVIDIA's data sheet"
    return [
        profile("l4-mist", "l4", f"{MIST}: {clocks}; operators measured, links and interference of its planning profile",
                L4_PLAN_LINKS, L4_PLAN_COPIES, "fitted", shared_factors(L4_PLAN_FACTORS), rows),
        profile("l4-mist-overlap", "l4", f"{MIST}: {clocks}; operators measured, links and interference of the profile "
                "that belongs to its overlap measurements (one node)", L4_OVERLAP_LINKS, L4_OVERLAP_COPIES, "fitted",
                shared_factors(L4_OVERLAP_FACTORS), rows),
        profile("l4", "l4", f"{MIST}: {clocks}; operators measured, links of its planning profile; interference "
                "{}".format(l4_fit["source"]), L4_PLAN_LINKS, L4_PLAN_COPIES, "fitted", l4_fit["interference"], rows),
        profile("a100-mist", "a100-40g", f"{a100}; links and interference as published", A100_LINKS, A100_COPIES,
                "fitted", shared_factors(A100_FACTORS)),
        profile("a100-40g", "a100-40g", f"{a100}; links as published; interference {a100_fit['source']}", A100_LINKS,
                A100_COPIES, "fitted", a100_fit["interference"]),
    ]


def data_sheet_profiles():
    note = "NVIDIA's data sheet, dense peaks; nothing measured on this device"
    usual = shared_factors(A100_FACTORS)
    return [
        profile("l4-datasheet", "l4", f"{note}; links and copies: those Mist fitted on L4; {A100_INTERFERENCE}",
                L4_PLAN_LINKS, L4_PLAN_COPIES, "data sheet", usual),
        profile("a10", "a10", f"{note}; links and copies: those Mist fitted on L4 (PCIe, 100 Gbit/s between nodes), not "
                f"raised for the wider PCIe slot; {A100_INTERFERENCE}", L4_PLAN_LINKS, L4_PLAN_COPIES, "data sheet",
                usual),
        profile("a100-80g", "a100-80g", f"{note}; NVLink, host copies and latencies: those Mist fitted on A100-40GB; "
                f"between nodes 70 % of 400 Gbit/s a node; {A100_INTERFERENCE}", scaled_a100_links(1, 400), A100_COPIES,
                "data sheet", usual),
        profile("h100", "h100", f"{note}; NVLink (900 against 600 GB/s) and host copies (PCIe 5 against 4) as efficient "
                "as Mist's A100-40GB, its latencies; between nodes 70 % of 800 Gbit/s a node; "
                f"{A100_INTERFERENCE}", scaled_a100_links(1.5, 800), times(A100_COPIES, 2), "data sheet", usual),
    ]


def whole(value):
    """121e12 is written 121000000000000."""
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def write(folder, entry):
    """JSON with one link, factor set or operator a line."""
    lines = []
    for key, value in entry.items():
        if isinstance(value, list):
            rows = ",\n".join(f"    {json.dumps(row)}" for row in value)
            text = f"[\n{rows}\n  ]" if value else "[]"
        elif key == "copies":
            text = "{\n" + ",\n".join(f'    "{name}": {json.dumps(row)}' for name, row in value.items()) + "\n  }"
        else:
            text = json.dumps(whole(value))
        lines.append(f'  "{key}": {text}')
    (folder / f"{entry['name']}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def stored_fit(folder, name, published):
    """The interference of a profile as its file has it; the published factors where there is none yet."""
    path = folder / f"{name}.json"
    if not path.exists():
        return {"source": "as published", "interference": shared_factors(published)}
    old = json.loads(path.read_text())
    return {"source": old["source"].rsplit("interference ", 1)[1], "interference": old["interference"]}


def new_fit(binary, profile_name, measurements):
    done = subprocess.run([binary, profile_name, measurements], check=True, stdout=subprocess.PIPE, text=True)
    rounded = json.loads(done.stdout, parse_float=lambda text: float(f"{float(text):.6g}"))
    return {"source": "fitted anew to its overlap measurements, all factors together, one set for each group shape",
            "interference": rounded}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "profiles")
    parser.add_argument("--fit", help="gantry_fit_interference")
    options = parser.parse_args()
    rows = operators(options.data / "mist-l4" / "opdb_l4")
    if options.fit:
        l4 = new_fit(options.fit, "l4-mist-overlap", options.data / "mist-l4" / "overlap_measurements.json")
        a100 = new_fit(options.fit, "a100-mist", options.data / "mist-a100" / "overlap_measurements.json")
    else:
        l4 = stored_fit(options.out, "l4", L4_PLAN_FACTORS)
        a100 = stored_fit(options.out, "a100-40g", A100_FACTORS)
    options.out.mkdir(exist_ok=True)
    for entry in measured_profiles(rows, l4, a100) + data_sheet_profiles():
        write(options.out, entry)
        print(f"{entry['name']}: {len(entry['operators'])} operators, {len(entry['interference'])} sets of factors")


if __name__ == "__main__":
    main()
