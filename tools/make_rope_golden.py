#!/usr/bin/env python3
"""Writes tests/data/spec/rope.json: inverse frequencies of every rotary variant, computed by transformers in fp32.

Needs torch and transformers 5:  python tools/make_rope_golden.py
"""

import json
import pathlib

import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

BASE = dict(
    model_type="llama", vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=1,
    num_attention_heads=4, num_key_value_heads=2, head_dim=64, max_position_embeddings=4096,
)

LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=8192)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=16.0, original_max_position_embeddings=4096)

# name, rotary parameters, sequence length, other fields
CASES = [
    ("default", dict(rope_type="default", rope_theta=10000.0), 128, {}),
    ("default_theta_100000", dict(rope_type="default", rope_theta=100000.0), 128, {}),
    ("default_head_128", dict(rope_type="default", rope_theta=1000000.0), 128, dict(head_dim=128)),
    ("linear", dict(rope_type="linear", rope_theta=10000.0, factor=4.0), 128, {}),
    ("dynamic_within", dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0), 4096, {}),
    ("dynamic_above", dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0), 10000, {}),
    ("dynamic_ignores_original", dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0,
                                      original_max_position_embeddings=2048), 6000, {}),
    ("yarn", YARN, 65536, dict(max_position_embeddings=65536)),
    ("yarn_mscale", dict(YARN, factor=40.0, mscale=0.707, mscale_all_dim=0.5, beta_fast=32.0, beta_slow=1.0), 128, {}),
    ("yarn_mscale_equal", dict(YARN, factor=40.0, mscale=1.0, mscale_all_dim=1.0), 128, {}),
    ("yarn_attention_factor", dict(YARN, attention_factor=1.25), 128, {}),
    ("yarn_betas", dict(YARN, beta_fast=16.0, beta_slow=2.0), 128, {}),
    ("yarn_untruncated", dict(YARN, truncate=False, rope_theta=150000.0, factor=32.0), 128, {}),
    ("yarn_implied_original", dict(rope_type="yarn", rope_theta=10000.0, factor=4.0), 128, {}),
    ("llama3", LLAMA3, 128, dict(max_position_embeddings=131072)),
    ("llama3_factor_32_head_128", dict(LLAMA3, factor=32.0), 128, dict(max_position_embeddings=131072, head_dim=128)),
]


def plain(config):
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    return 1.0 / (config.rope_parameters["rope_theta"] ** exponents), 1.0


def main():
    cases = []
    for name, rope, length, other in CASES:
        fields = dict(BASE, **other, rope_parameters=rope)
        config = LlamaConfig(**json.loads(json.dumps(fields)))
        kind = rope["rope_type"]
        inverse, factor = (
            plain(config) if kind == "default" else ROPE_INIT_FUNCTIONS[kind](config, device="cpu", seq_len=length)
        )
        cases.append(dict(name=name, config=fields, sequence_length=length, attention_factor=float(factor),
                          inverse=[float(value) for value in inverse]))
    root = pathlib.Path(__file__).resolve().parent.parent
    path = root / "tests" / "data" / "spec" / "rope.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(case) for case in cases)
    path.write_text(f"[\n{lines}\n]\n")
    print(f"{len(cases)} cases in {path}")


if __name__ == "__main__":
    main()
