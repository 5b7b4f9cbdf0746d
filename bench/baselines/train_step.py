#!/usr/bin/env python3
"""One fine-tuning step of a causal language model in eager PyTorch with transformers: what a careful user runs today.

A step is forward, backward, clip_grad_norm_(1.0), AdamW, zero_grad. Fields of a round: seconds (of one step, the mean
over --steps), tokens_per_s, loss, peak_rss_bytes (since warm-up), peak_rss_lifetime_bytes (loading included).

--dtype fp32            parameters, activations and optimiser state in fp32
        bf16            everything in bf16, the optimiser state too
        bf16-autocast   fp32 parameters and state, torch.autocast in bf16: the peer of fp32 master weights
"""

import time

import server


def options():
    result = server.parser(__doc__, "model directory in Hugging Face layout")
    result.add_argument("--dtype", choices=["fp32", "bf16", "bf16-autocast"], default="fp32")
    result.add_argument("--batch", type=int, default=4, help="sequences a step")
    result.add_argument("--seq", type=int, default=256, help="tokens a sequence")
    result.add_argument("--steps", type=int, default=1, help="steps a round")
    result.add_argument("--warmup", type=int, default=2, help="steps before 'ready'")
    result.add_argument("--optimizer-default", action="store_true", help="plain torch.optim.AdamW, not fused=True")
    result.add_argument("--profile", metavar="FILE", help="write torch.profiler tables of one step there and exit")
    return result.parse_args()


def load(args):
    server.limit_threads(args.threads)
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype)
    model.train()
    fused = None if args.optimizer_default else True
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=fused)
    ids = torch.randint(0, model.config.vocab_size, (args.batch, args.seq))
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.dtype == "bf16-autocast")

    def step():
        with autocast:
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    for _ in range(args.warmup):
        step()
    server.reset_peak_memory()

    def run_round():
        begin = time.perf_counter()
        for _ in range(args.steps):
            loss = step()
        seconds = (time.perf_counter() - begin) / args.steps
        return {
            "seconds": seconds,
            "tokens_per_s": args.batch * args.seq / seconds,
            "loss": loss,
            **server.peak_memory(),
        }

    settings = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "dtype": args.dtype,
        "attention": model.config._attn_implementation,
        "optimizer": "AdamW" if args.optimizer_default else "AdamW(fused=True)",
        "batch": args.batch,
        "seq": args.seq,
        "threads": args.threads,
        "parameters": model.num_parameters(),
    }
    return settings, run_round, step


def profile(args, step):
    import torch

    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, record_shapes=True) as recording:
        step()
    with open(args.profile, "w") as file:
        for title, by_shape, rows in (("operators", False, 40), ("operators by input shape", True, 45)):
            table = recording.key_averages(group_by_input_shape=by_shape).table(
                sort_by="self_cpu_time_total", row_limit=rows, max_name_column_width=60, max_shapes_column_width=100)
            file.write(f"{title}, one step, {args.dtype}, batch {args.batch}, seq {args.seq}\n{table}\n")


def main():
    args = options()
    if args.profile:
        _, _, step = load(args)
        profile(args, step)
    else:
        server.serve(lambda: load(args)[:2])


if __name__ == "__main__":
    main()
