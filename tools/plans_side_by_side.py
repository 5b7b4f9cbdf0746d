#!/usr/bin/env python3
"""Prints plan files next to each other, each on the cluster it was made for:  plans_side_by_side.py PLAN.json..."""
import json
import sys

GIB = 2**30


def spread(values):
    """"4" where all agree, else "1-4"."""
    return str(min(values)) if len(set(values)) == 1 else f"{min(values)}-{max(values)}"


def rows(plan):
    stages, predicted = plan["stages"], plan["predicted"]
    peak = max(max(s["predicted"]["memory_forward_bytes"], s["predicted"]["memory_backward_bytes"]) for s in stages)
    layers = [s["layers"][1] - s["layers"][0] for s in stages]
    yield "model", plan["model"]["name"]
    yield "cluster", plan["cluster"]
    yield "sequences x tokens", f"{plan['global_batch']} x {plan['sequence_tokens']}"
    yield "iteration", f"{predicted['iteration_s']:.3f} s"
    yield "tokens/s", f"{predicted['tokens_per_s']:,.0f}"
    yield "schedule", plan["schedule"]
    yield "micro-batches", str(plan["accumulation"])
    yield "stages", str(len(stages))
    yield "layers a stage", spread(layers)
    for name in ("micro_batch", "data_parallel", "tensor_parallel", "zero"):
        yield name.replace("_", " "), spread([s[name] for s in stages])
    yield "checkpointed layers", f"{sum(s['checkpointed'] for s in stages)} of {sum(layers)}"
    for name in ("weights", "gradients", "optimizer", "activations"):
        yield f"offloaded {name}", spread([round(100 * s["offload"][name]) for s in stages]) + " %"
    yield "fullest device", f"{peak / GIB:.1f} GiB"
    yield "operator prices", ", ".join(f"{count} {name}" for name, count in plan["provenance"].items() if count)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    tables = []
    for file in sys.argv[1:]:
        with open(file, encoding="utf-8") as text:
            tables.append(list(rows(json.load(text))))
    for entries in zip(*tables):
        print(f"  {entries[0][0]:<22}" + "".join(f"{value:>32}" for _, value in entries))


if __name__ == "__main__":
    main()
