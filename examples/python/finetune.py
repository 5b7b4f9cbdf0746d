"""Fine-tune a model on a text file with a training loop of your own, and see its perplexity fall.

    python examples/python/finetune.py MODEL TEXT OUT --steps 50

The last tenth of the text is held out. For a whole run with checkpoints, metrics and resuming, see gantry.train.
"""

import argparse
import pathlib

import torch

import gantry


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=256, help="tokens a sequence")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    args = parser.parse_args()

    model = gantry.load(args.model)
    ids = torch.tensor(model.tokenizer.encode(args.text.read_text(encoding="utf-8"), parse_special=False))
    split = len(ids) * 9 // 10
    training, held_out = ids[:split], ids[split:]
    if len(training) <= args.tokens:
        parser.error(f"{args.text}: {len(ids)} tokens are too few for sequences of {args.tokens}")

    print(f"perplexity before: {model.perplexity(held_out, window=args.tokens, max_windows=16):.3f}")
    trainer = gantry.Trainer(model, dtype="bf16", steps=args.steps, learning_rate=args.learning_rate)
    generator = torch.Generator().manual_seed(0)
    for step in range(args.steps):
        starts = torch.randint(len(training) - args.tokens, (args.batch,), generator=generator)
        report = trainer.step(torch.stack([training[start : start + args.tokens] for start in starts]))
        if step % 10 == 0 or step == args.steps - 1:
            print(f"step {step + 1}: loss {report.loss:.4f}, learning rate {report.learning_rate:.2e}")
    print(f"perplexity after: {model.perplexity(held_out, window=args.tokens, max_windows=16):.3f}")
    model.save(args.out)
    print(f"saved to {args.out}")


if __name__ == "__main__":
    main()
