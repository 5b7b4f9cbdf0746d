#!/usr/bin/env python3
"""Do memory modes change training? Trains with each mode and seed and compares the loss curves.

Two tasks, on real text: a BERT masked language model from scratch (4 layers of 256, byte tokens, dropout 0.1), and
SmolLM2 fine-tuned. For every mode: the loss at the end (mean of the last fifth), the largest difference from `store`
with the same seed at any step, and, as the yardstick, the spread of `store` between seeds.

    bench/loss_curves.py --data text.txt [--model build/model/bench/fp32] [--steps 300] [--seeds 0,1,2]

Prints one JSON line a task and a table. Without --model only BERT is trained. Runs of a folder --out are kept and not
repeated.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path


def bytes_to_letters():
    """The printable stand-ins of byte-level BPE: printable Latin-1 as itself, the rest from U+0100 on."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, next_letter = {}, 256
    for byte in range(256):
        letters[byte] = chr(byte if byte in kept else next_letter)
        next_letter += byte not in kept
    return letters


def make_bert(folder):
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 260, "hidden_size": 256,
        "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024, "hidden_act": "gelu",
        "max_position_embeddings": 128, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "initializer_range": 0.02,
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "tie_word_embeddings": True,
        "pad_token_id": 257,
    }  # fmt: skip
    vocabulary = {letter: byte for byte, letter in bytes_to_letters().items()}
    special = [{"id": 256 + i, "content": name, "special": True, "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": False} for i, name in enumerate(["<mask>", "<pad>"])]  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0", "added_tokens": special, "normalizer": None, "pre_tokenizer": byte_level,
        "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [], "unk_token": None},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def train(options, model, out, extra):
    metrics = out / "metrics.jsonl"
    if not (out / "config.json").exists():
        command = [options.gantry, "train", str(model), "--data", options.data, "--out", str(out), "--dtype", "fp32",
                   "--steps", str(options.steps), "--keep-checkpoints", "1", *extra]  # fmt: skip
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
        for checkpoint in out.glob("checkpoint-*/*.safetensors"):
            checkpoint.unlink()
        for weights in out.glob("*.safetensors"):
            weights.unlink()
    records = map(json.loads, metrics.read_text().splitlines())
    return [record["loss"] for record in records if record["event"] == "step"]


def end_of(curve):
    return statistics.mean(curve[-max(1, len(curve) // 5):])


def compare(task, options, model, extra, modes):
    curves = {}
    for seed in options.seeds:
        for mode in modes:
            out = options.out / f"{task}-{mode}-{seed}"
            curves[mode, seed] = train(options, model, out, [*extra, "--memory-mode", mode, "--seed", str(seed)])
            print(f"{task} {mode} seed {seed}: {curves[mode, seed][0]:.4f} -> {end_of(curves[mode, seed]):.4f}",
                  file=sys.stderr)  # fmt: skip
    ends = {mode: [end_of(curves[mode, seed]) for seed in options.seeds] for mode in modes}
    result = {"task": task, "steps": options.steps, "seeds": len(options.seeds),
              "seed_spread": max(ends["store"]) - min(ends["store"]), "modes": {}}  # fmt: skip
    print(f"\n{task}, {options.steps} steps, {len(options.seeds)} seeds; loss at the end of `store` differs by "
          f"{result['seed_spread']:.4f} between seeds")  # fmt: skip
    print("| mode | loss at the end | difference from store, same seed | largest at any step |")
    print("|---|---|---|---|")
    for mode in modes:
        difference = max(abs(a - b) for a, b in zip(ends[mode], ends["store"]))
        largest = max(abs(a - b) for seed in options.seeds for a, b in zip(curves[mode, seed], curves["store", seed]))
        result["modes"][mode] = {"end": ends[mode], "end_difference": difference, "largest_difference": largest}
        print(f"| {mode} | {statistics.mean(ends[mode]):.4f} | {difference:.1e} | {largest:.1e} |")
    print(json.dumps(result))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gantry", default="build/release/bin/gantry")
    parser.add_argument("--data", required=True, help="text to train on")
    parser.add_argument("--model", help="SmolLM2 in Hugging Face layout, to fine-tune")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", default="0,1,2", type=lambda text: [int(seed) for seed in text.split(",")])
    parser.add_argument("--modes", default="store,in-place,recompute,rerun,int8", type=lambda text: text.split(","))
    parser.add_argument("--out", default="build/loss-curves", type=Path)
    options = parser.parse_args()
    make_bert(options.out / "bert")
    compare("bert-mlm", options, options.out / "bert",
            ["--from-scratch", "--batch", "8", "--sequence-length", "128", "--learning-rate", "3e-4", "--warmup-steps", "50"],
            options.modes)  # fmt: skip
    if options.model:
        compare("smollm2", options, options.model, ["--batch", "1", "--sequence-length", "64", "--learning-rate", "2e-5"],
                options.modes)  # fmt: skip


if __name__ == "__main__":
    main()
