#!/usr/bin/env python3
"""Greedy single-stream decoding with transformers' generate() and its key/value cache.

A round generates --tokens tokens after a prompt and times them by a streamer that is called once a token. Fields:
seconds (of decoding), tokens_per_s (decoding alone: the first token, which the prompt's pass yields, is not counted),
first_token_s (prompt), tokens (how many were timed).
"""

import time

import server


class TokenTimer:
    """The part of transformers' streamer interface that generate() calls: put() for the prompt, then for each token."""

    def __init__(self):
        self.times = []

    def put(self, _value):
        self.times.append(time.perf_counter())

    def end(self):
        pass


def options():
    result = server.parser(__doc__, "model directory in Hugging Face layout")
    result.add_argument("--dtype", choices=["fp32", "bf16"], default="bf16")
    result.add_argument("--prompt-tokens", type=int, default=16)
    result.add_argument("--tokens", type=int, default=64, help="generated tokens a round")
    result.add_argument("--ids", metavar="LIST", help="prompt as comma-separated ids; the generated ids are printed")
    return result.parse_args()


def load(args):
    server.limit_threads(args.threads)
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype).eval()
    model.generation_config.eos_token_id = None  # always --tokens tokens
    if args.ids:
        prompt = torch.tensor([[int(part) for part in args.ids.split(",")]])
    else:
        prompt = torch.randint(100, model.config.vocab_size, (1, args.prompt_tokens))

    def run_round():
        timer = TokenTimer()
        with torch.inference_mode():
            output = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False, use_cache=True,
                max_new_tokens=args.tokens, streamer=timer)
        prompt_time, *token_times = timer.times
        seconds = token_times[-1] - token_times[0]
        result = {
            "seconds": seconds,
            "tokens_per_s": (len(token_times) - 1) / seconds,
            "first_token_s": token_times[0] - prompt_time,
            "tokens": len(token_times) - 1,
            **server.peak_memory(),
        }
        if args.ids:
            result["ids"] = output[0, prompt.shape[1]:].tolist()
        return result

    run_round()
    server.reset_peak_memory()
    settings = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "dtype": args.dtype,
        "threads": args.threads,
        "prompt_tokens": prompt.shape[1],
    }
    return settings, run_round


if __name__ == "__main__":
    arguments = options()
    server.serve(lambda: load(arguments))
