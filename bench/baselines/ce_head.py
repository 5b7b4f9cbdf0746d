#!/usr/bin/env python3
"""Language-model head and cross entropy, forward and backward: what kernels::linear_cross_entropy replaces.

A round is one call with the gradients of the hidden states and of the weight, then a second, untimed one under
torch.profiler for the memory. Fields of a round: seconds (wall), cpu_seconds (of the process, all threads), loss,
peak_live_bytes (most bytes of tensors alive above the start, the two gradients included).

--arm eager     F.cross_entropy(F.linear(x, w).float(), y)
      chunked   torch's own F.linear_cross_entropy with its chunking options, where this torch has it
      compile   torch.compile of eager
"""

import argparse
import time

import server


def options():
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--arm", choices=["eager", "chunked", "compile"], default="eager")
    result.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    result.add_argument("--tokens", type=int, default=4096)
    result.add_argument("--vocab", type=int, default=50257)
    result.add_argument("--hidden", type=int, default=768)
    result.add_argument("--threads", type=int, default=2)
    result.add_argument("--seed", type=int, default=0)
    result.add_argument("--warmup", type=int, default=1, help="calls before 'ready' (default 1)")
    return result.parse_args()


def head(arm):
    import torch.nn.functional as functional

    def eager(hidden, weight, labels):
        return functional.cross_entropy(functional.linear(hidden, weight).float(), labels)

    if arm == "eager":
        return eager
    if arm == "compile":
        import torch

        return torch.compile(eager, dynamic=False)
    if not hasattr(functional, "linear_cross_entropy"):
        raise ImportError("this torch has no torch.nn.functional.linear_cross_entropy")
    from torch.nn import LinearCrossEntropyOptions

    chunking = LinearCrossEntropyOptions()
    return lambda hidden, weight, labels: functional.linear_cross_entropy(hidden, weight, labels, options=chunking)


def peak_live_bytes(call):
    """Most bytes of CPU tensors alive at a time above the start of `call`, from the profiler's allocation records."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as recording:
        call()
    live = peak = 0
    records = (event for event in recording.profiler.kineto_results.events() if event.name() == "[memory]")
    for event in sorted(records, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def load(args):
    server.limit_threads(args.threads)
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    weight = (torch.randn(args.vocab, args.hidden) * 0.02).to(dtype).requires_grad_()
    hidden = torch.randn(args.tokens, args.hidden).to(dtype).requires_grad_()
    labels = torch.randint(args.vocab, (args.tokens,))
    loss_of = head(args.arm)

    def call():
        weight.grad = hidden.grad = None
        loss = loss_of(hidden, weight, labels)
        loss.backward()
        return loss.item()

    for _ in range(args.warmup):
        call()

    def run_round():
        begin, begin_cpu = time.perf_counter(), time.process_time()
        loss = call()
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - begin_cpu
        weight.grad = hidden.grad = None
        peak = peak_live_bytes(call)
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "loss": loss, "peak_live_bytes": peak}

    settings = {"torch": torch.__version__, "threads": args.threads}
    settings.update({name: getattr(args, name) for name in ("arm", "dtype", "tokens", "vocab", "hidden")})
    return settings, run_round


def main():
    args = options()
    server.serve(lambda: load(args))


if __name__ == "__main__":
    main()
