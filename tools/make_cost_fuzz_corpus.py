#!/usr/bin/env python3
"""Seeds of the fuzz targets cost_profile and cost_cluster.

Usage: tools/make_cost_fuzz_corpus.py [fuzz/corpus]. Needs only Python's standard library; the seeds are the same every time.
"""
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = {"schema": 1, "name": "lab", "profile": "l4", "nodes": 2, "devices_per_node": 4,
           "device_memory_bytes": 20 << 30, "host_memory_bytes": 256 << 30, "devices_per_host_link": 2}


def small_profile():
    profile = json.loads((ROOT / "profiles" / "l4-mist.json").read_text())
    seen, rows = set(), []
    for row in profile["operators"]:  # one of each operator
        if row["op"] not in seen:
            seen.add(row["op"])
            rows.append(row)
    profile["operators"] = rows
    profile["collectives"] = profile["collectives"][:2]
    return profile


def profile_seeds():
    valid = small_profile()
    text = json.dumps(valid)

    def changed(**fields):
        return json.dumps({**valid, **fields})

    link = valid["collectives"][0]
    row = valid["operators"][0]
    bare = {key: value for key, value in valid.items() if key not in ("operators", "matrix_flops_per_s")}
    return {
        "valid": text,
        "data_sheet": (ROOT / "profiles" / "a10.json").read_text(),
        "truncated": text[:len(text) // 2],
        "empty_object": "{}",
        "nothing_to_price_with": json.dumps(bare),
        "negative_bandwidth": changed(collectives=[{**link, "gib_per_s": -1}]),
        "zero_bandwidth": changed(collectives=[{**link, "gib_per_s": 0}]),
        "number_overflows": text.replace("0.0004", "1e999"),
        "memory_overflows": changed(device_memory_bytes=2**64 - 1),
        "sizes_overflow": changed(operators=[{**row, "sizes": {"elements": 2**63}}]),
        "sizes_fraction": changed(operators=[{**row, "sizes": {"elements": 1.5}}]),
        "sizes_list": changed(operators=[{**row, "sizes": [1, 2]}]),
        "duplicate_operator": changed(operators=[row, row]),
        "duplicate_link": changed(collectives=[link, link]),
        "group_of_one": changed(collectives=[{**link, "per_node": 1, "nodes": 1}]),
        "factor_below_one": changed(interference=[{"per_node": 0, "nodes": 0, "factors": {"CG": [0, 1]}}]),
        "unknown_field": changed(racks=1),
        "a_cluster": json.dumps(CLUSTER),
        "deep": "[" * 5000,
        "name_not_utf8": text.encode().replace(b'"l4-mist"', b'"\xff\xfe"'),
    }


def cluster_seeds():
    def changed(**fields):
        return json.dumps({**CLUSTER, **fields})

    return {
        "valid": json.dumps(CLUSTER),
        "minimal": json.dumps({key: CLUSTER[key] for key in ("schema", "name", "profile", "nodes", "devices_per_node")}),
        "zero_nodes": changed(nodes=0),
        "zero_devices": changed(devices_per_node=0),
        "negative_nodes": changed(nodes=-1),
        "nodes_overflow": changed(nodes=2**63),
        "nodes_times_devices": changed(nodes=65536, devices_per_node=64),
        "memory_overflows": changed(host_memory_bytes=2**64 - 1),
        "link_wider_than_node": changed(devices_per_host_link=5),
        "own_profile": changed(profile="lab"),
        "unknown_field": changed(racks=1),
        "a_profile": json.dumps(small_profile()),
        "name": "l4-4x8",
        "name_zero": "l4-0x0",
        "name_overflows": "h100-99999999999x8",
        "name_twice": "a100-80g-2x8x2",
        "this": "this",
        "truncated": json.dumps(CLUSTER)[:40],
    }


def main():
    corpus = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "fuzz" / "corpus"
    for target, seeds in (("cost_profile", profile_seeds()), ("cost_cluster", cluster_seeds())):
        folder = corpus / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in seeds.items():
            (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        print(f"{folder}: {len(seeds)} seeds")


if __name__ == "__main__":
    main()
