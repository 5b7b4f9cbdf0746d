#!/usr/bin/env python3
"""Training steps of a stack of stock PyTorch layers in a fixed memory budget.

A step is forward on random hidden states [B, S, H], backward from a random gradient and AdamW. Memory is the growth of
the peak resident size over the resting one, which includes weights, gradients and the optimiser's state. Before
"ready" the server looks for the largest batch whose measured growth fits `budget_bytes`, or takes `batch` where that is
set. A round is one step of `timed_batch` (0: the largest batch) at most. Gradients stay allocated between steps, as where
they add up over several; an arm that ends in "+freed" frees them before the forward pass (`zero_grad()` as it is by
default), which lends their memory to the activations.

Settings, one JSON object: family, layers, sequence_length, dropout, dtype, arm, budget_bytes, batch, timed_batch and
threads. Ready: batch, timed_batch and growth_bytes at `batch`. Round: seconds, samples_per_s, growth_bytes.
"""

import time

import server

NEAR = 1.03  # a batch that the measured line puts further than this above the budget needs no trial
FINENESS = 32  # batches that differ by one part in this many are not told apart


def resident_bytes():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS:"))


def largest_batch(growth, budget):
    """The largest batch whose growth(batch) fits, to FINENESS: from a line through what was measured, checked by
    measuring. Peaks vary, so the line starts at batch 1, and a trial cuts at least an eighth off what is open."""
    fits, first = (2, growth(2)), growth(1)
    if fits[1] > budget:
        return 1 if first <= budget else 0
    too_large = None
    while too_large is None or too_large - fits[0] > max(1, fits[0] // FINENESS):
        slope = max(1, (fits[1] - first) / (fits[0] - 1))
        if fits[0] > 2 and fits[1] + slope > NEAR * budget:
            return fits[0]
        margin = max(1, ((too_large - fits[0]) if too_large else fits[0]) // 8)
        most = too_large - margin if too_large else 4 * fits[0]
        trial = min(max(fits[0] + int((budget - fits[1]) / slope), fits[0] + margin), most)
        grown = growth(trial)
        if grown > budget:
            too_large = trial
        else:
            fits = (trial, grown)
    return fits[0]


def load(settings):
    server.limit_threads(settings["threads"])
    import torch

    import layers_blocks as blocks

    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    shape = blocks.shape_of(settings["family"], settings["sequence_length"])
    arm, _, gradients = settings["arm"].partition("+")
    if gradients not in ("", "freed"):
        raise ValueError(f"arm is '{settings['arm']}', expected a name of layers_blocks.ARMS, or that and '+freed'")
    dtype = settings["dtype"]
    layers = [
        blocks.make_layer(arm, shape, settings["dropout"], blocks.parameter_dtype(dtype))
        for _ in range(settings["layers"])
    ]
    stack = torch.nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(stack.parameters(), lr=1e-5, fused=True)

    def step(batch):
        """(seconds, bytes by which the peak grew)"""
        size = (batch, shape.sequence_length, shape.hidden)
        x, gradient = (torch.randn(size, dtype=blocks.parameter_dtype(dtype)) for _ in range(2))
        blocks.mark_batch(arm, x)
        optimizer.zero_grad(set_to_none=False)
        blocks.give_back_free_memory()
        rest = resident_bytes()
        if gradients == "freed":
            optimizer.zero_grad(set_to_none=True)
            blocks.give_back_free_memory()
        if not server.reset_peak_memory():
            raise RuntimeError("this system does not allow /proc/self/clear_refs; peaks can't be measured")
        begin = time.perf_counter()
        with blocks.autocast(dtype):
            y = stack(x)
        y.backward(gradient)
        del y
        optimizer.step()
        seconds = time.perf_counter() - begin
        grown = server.peak_memory()["peak_rss_bytes"] - rest
        blocks.give_back_free_memory()  # the other arms of a round share this machine's memory
        return seconds, grown

    def growth(batch):
        return step(batch)[1]

    for warm_up in (1, 2, 2) if blocks.ARMS[arm].compile_budget > 0 else (1, 1):
        step(warm_up)
    batch = settings["batch"] or largest_batch(growth, settings["budget_bytes"])
    grown_at_batch = growth(batch) if batch > 0 else 0
    while settings["batch"] == 0 and grown_at_batch > settings["budget_bytes"]:  # peaks vary: a batch must fit twice
        batch -= 1
        grown_at_batch = growth(batch) if batch > 0 else 0
    timed = min(batch, settings["timed_batch"] or batch)

    def run_round():
        if timed == 0:
            return {"seconds": 0.0, "samples_per_s": 0.0, "growth_bytes": 0}
        seconds, grown = step(timed)
        return {"seconds": seconds, "samples_per_s": timed / seconds, "growth_bytes": grown}

    return {"torch": torch.__version__, "batch": batch, "timed_batch": timed, "growth_bytes": grown_at_batch}, run_round


if __name__ == "__main__":
    server.serve_settings(__doc__, load)
