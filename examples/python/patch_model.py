"""Patch a model of torch or of Hugging Face transformers, and see what a training step keeps before and after.

    python examples/python/patch_model.py                                  # an encoder of torch.nn
    python examples/python/patch_model.py --folder PATH                    # a model saved by transformers
    python examples/python/patch_model.py --share 0.6                      # a budget: 60% of the stock model's peak
"""

import argparse

import torch

import gantry.nn
from gantry.nn.patch_measure import Step


def encoder(tokens):
    layer = torch.nn.TransformerEncoderLayer(256, 8, 1024, dropout=0.1, activation=torch.nn.GELU(), batch_first=True)
    return torch.nn.TransformerEncoder(layer, 4), {"src": torch.randn(4, tokens, 256)}


def pretrained(folder, tokens):
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    model = getattr(transformers, config.architectures[0]).from_pretrained(folder)
    return model, {"input_ids": torch.randint(config.vocab_size, (4, tokens))}


def measured(model, example):
    """(bytes kept for backward, most bytes allocated at a time) of one training step."""
    step = Step(model, example)
    with step.traceless():
        return step.saved_bytes(), step.peak_bytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="a model in Hugging Face layout")
    parser.add_argument("--tokens", type=int, default=256, help="tokens a sequence, four sequences")
    parser.add_argument("--share", type=float, help="budget as a share of the stock model's peak")
    args = parser.parse_args()

    model, example = pretrained(args.folder, args.tokens) if args.folder else encoder(args.tokens)
    model.train()
    before = measured(model, example)
    if args.share is None:
        table = gantry.nn.patch(model)
    else:
        table = gantry.nn.patch(model, budget_bytes=int(args.share * before[1]), example=example)
    print(table)
    for name, old, new in zip(("kept for backward", "peak of a step"), before, measured(model, example), strict=True):
        print(f"{name}: {old / 2**20:.1f} MiB -> {new / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
