#!/usr/bin/env python3
"""Bytes that one Transformer layer of stock PyTorch keeps for its backward pass, one field of a round an arm.

Values are c = bytes / (B S H), from the difference of two batches: what does not grow with the batch (autocast's copies
of the weights, attention masks) is no activation. Settings: family, sequence_length, dropout, dtype (fp32, bf16,
bf16-autocast) and arms, as one JSON object.
"""

import gc

import server

BATCHES = (2, 3)


def load(settings):
    server.limit_threads(settings["threads"])
    import torch

    import layers_blocks as blocks

    torch.set_num_threads(settings["threads"])
    shape = blocks.shape_of(settings["family"], settings["sequence_length"])
    dtype = settings["dtype"]

    def saved(arm, batch):
        torch.manual_seed(0)
        layer = blocks.make_layer(arm, shape, settings["dropout"], blocks.parameter_dtype(dtype))
        x = torch.randn(batch, shape.sequence_length, shape.hidden, dtype=blocks.parameter_dtype(dtype))
        blocks.mark_batch(arm, x.requires_grad_())
        if blocks.ARMS[arm].compile_budget > 0:
            with blocks.autocast(dtype):
                layer(x)  # compiles
        with blocks.SavedBytes(layer) as meter, blocks.autocast(dtype):
            y = layer(x)
        total = meter.bytes
        del meter, y, layer
        gc.collect()
        blocks.give_back_free_memory()
        return total

    def run_round():
        unit = (BATCHES[1] - BATCHES[0]) * shape.sequence_length * shape.hidden
        result = {}
        for arm in settings["arms"]:
            result[arm] = (saved(arm, BATCHES[1]) - saved(arm, BATCHES[0])) / unit
            torch.compiler.reset()
        return result

    if any(blocks.ARMS[arm].transformers for arm in settings["arms"]):
        import transformers  # noqa: F401 - reports a missing package before the round
    return {"torch": torch.__version__}, run_round


if __name__ == "__main__":
    server.serve_settings(__doc__, load)
