#!/usr/bin/env python3
"""Are the gradients of a dropout layer right? fp64, one seed for every forward pass, so one mask.

A round returns for each arm the relative difference between the directional derivative that backward gives and the
central difference of the loss, and whether the forward pass repeats itself under one seed (it must, or the difference
means nothing). Settings: hidden, heads, sequence_length, dropout and arms, as one JSON object.
"""

import server

STEP = 1e-5


def load(settings):
    server.limit_threads(settings["threads"])
    import torch

    import layers_blocks as blocks

    torch.set_num_threads(settings["threads"])
    size = settings["hidden"]
    shape = blocks.Shape("bert", size, settings["heads"], settings["heads"], 4 * size, settings["sequence_length"])

    def check(arm):
        torch.compiler.reset()
        torch.manual_seed(0)
        layer = blocks.make_layer(arm, shape, settings["dropout"], torch.float64)
        x, weights, direction = (
            torch.randn(2, shape.sequence_length, size, dtype=torch.float64) for _ in range(3))

        def loss(point):
            torch.manual_seed(1)
            return (layer(point) * weights).sum()

        point = x.clone().requires_grad_()
        first = loss(point)
        first.backward()
        analytic = (point.grad * direction).sum().item()
        repeatable = loss(point.detach().requires_grad_()).item() == first.item()
        ends = [loss((x + step * direction).requires_grad_()).item() for step in (STEP, -STEP)]
        numeric = (ends[0] - ends[1]) / (2 * STEP)
        return {"relative_error": abs(analytic - numeric) / abs(numeric), "repeatable": repeatable}

    return {"torch": torch.__version__}, lambda: {arm: check(arm) for arm in settings["arms"]}


if __name__ == "__main__":
    server.serve_settings(__doc__, load)
