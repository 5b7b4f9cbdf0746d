#!/usr/bin/env python3
"""Does gantry.nn change training? Loss curves of eager PyTorch against the same model patched, on the same batches.

Two tasks of PyTorch and transformers, on real text, fp32, AdamW: a BERT masked language model from scratch (4 layers of
256, bytes, dropout 0.1; patched dropout draws other masks, so curves agree as those of two seeds do), and SmolLM2
fine-tuned (no dropout: curves agree to rounding). Prints a table and a JSON line a task; runs of --out are kept.

    PYTHONPATH=build/release/python .venv-bench/bin/python bench/loss_curves_eager.py --data text.txt \\
        --model build/model/bench/fp32 [--steps 300] [--seeds 0,1,2] [--arms eager,auto,in-place]
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import gantry.nn
import torch
import transformers

MASK, PAD, VOCABULARY = 256, 257, 260  # after the 256 bytes
IGNORED = -100


def bert_task(options):
    data = torch.tensor(list(Path(options.data).read_bytes()))
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024,
        max_position_embeddings=128, pad_token_id=PAD, attn_implementation="eager")  # fmt: skip

    def batch(generator):
        ids = windows(data, 8, 128, generator)
        chosen = torch.rand(ids.shape, generator=generator) < 0.15
        fate = torch.rand(ids.shape, generator=generator)
        inputs = torch.where(chosen & (fate < 0.8), MASK, ids)
        random = torch.randint(256, ids.shape, generator=generator)
        inputs = torch.where(chosen & (fate >= 0.9), random, inputs)
        return {"input_ids": inputs, "labels": torch.where(chosen, ids, IGNORED)}

    return lambda: transformers.BertForMaskedLM(config), batch, 3e-4


def smollm2_task(options):
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    data = torch.tensor(tokenizer(Path(options.data).read_text(), verbose=False)["input_ids"])

    def model():
        return transformers.AutoModelForCausalLM.from_pretrained(
            options.model, dtype=torch.float32, attn_implementation="eager")  # fmt: skip

    def batch(generator):
        ids = windows(data, 1, 64, generator)
        return {"input_ids": ids, "labels": ids}

    return model, batch, 2e-5


def windows(data, rows, length, generator):
    starts = torch.randint(len(data) - length, (rows,), generator=generator)
    return torch.stack([data[start : start + length] for start in starts.tolist()])


def train(task, arm, seed, steps):
    """The loss of every step. Weights, batches and order depend on the seed alone."""
    make, batch, learning_rate = task
    torch.manual_seed(seed)
    model = make().train()
    if arm != "eager":
        table = gantry.nn.patch(model, arm)
        assert table.patched, f"nothing was patched:\n{table}"
    generator = torch.Generator().manual_seed(1000 + seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 50))
    losses = []
    for _ in range(steps):
        loss = model(**batch(generator)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def end_of(curve):
    return statistics.mean(curve[-max(1, len(curve) // 5) :])


def compare(name, task, options):
    curves = {}
    for seed in options.seeds:
        for arm in options.arms:
            kept = options.out / f"{name}-{arm}-{seed}-{options.steps}.json"
            if not kept.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(train(task, arm, seed, options.steps)))
            curve = curves[arm, seed] = json.loads(kept.read_text())
            print(f"{name} {arm} seed {seed}: {curve[0]:.4f} -> {end_of(curve):.4f}", file=sys.stderr)
    ends = {arm: [end_of(curves[arm, seed]) for seed in options.seeds] for arm in options.arms}
    spread = max(ends["eager"]) - min(ends["eager"])
    result = {"task": name, "steps": options.steps, "seeds": len(options.seeds), "seed_spread": spread, "arms": {}}
    print(f"\n{name}, {options.steps} steps, {len(options.seeds)} seeds; the end of eager differs by {spread:.4f} between "
          "seeds")  # fmt: skip
    print("| arm | loss at the end, mean | difference from eager, mean | largest, same seed | largest at any step |")
    print("|---|---|---|---|---|")
    for arm in options.arms:
        differences = [a - b for a, b in zip(ends[arm], ends["eager"])]
        step = max(abs(a - b) for seed in options.seeds for a, b in zip(curves[arm, seed], curves["eager", seed]))
        mean, largest = statistics.mean(differences), max(map(abs, differences))
        result["arms"][arm] = {"end": ends[arm], "mean_difference": mean, "end_difference": largest, "any_step": step}
        print(f"| {arm} | {statistics.mean(ends[arm]):.4f} | {mean:+.1e} | {largest:.1e} | {step:.1e} |")
    print(json.dumps(result), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="text to train on")
    parser.add_argument("--model", help="SmolLM2 in Hugging Face layout, to fine-tune")
    parser.add_argument("--tasks", type=lambda text: text.split(","), help="bert-mlm, smollm2 (needs --model); all that can run if not given")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", default="0,1,2", type=lambda text: [int(seed) for seed in text.split(",")])
    parser.add_argument("--arms", default="eager,auto,in-place", type=lambda text: text.split(","))
    parser.add_argument("--out", default="build/loss-curves-eager", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if "eager" not in options.arms:
        parser.error("--arms must name eager, which the others are compared with")
    tasks = {"bert-mlm": bert_task, "smollm2": smollm2_task}
    chosen = options.tasks or (["bert-mlm", "smollm2"] if options.model else ["bert-mlm"])
    if unknown := set(chosen) - set(tasks):
        parser.error(f"--tasks: {', '.join(sorted(unknown))}: expected {' or '.join(tasks)}")
    if "smollm2" in chosen and not options.model:
        parser.error("--tasks smollm2 needs --model")
    torch.set_num_threads(options.threads)
    for name in chosen:
        compare(name, tasks[name](options), options)


if __name__ == "__main__":
    main()
