#!/usr/bin/env python3
"""Greedy single-stream decoding with llama.cpp (llama-cpp-python).

A round evaluates a prompt, then --tokens tokens one by one through llama.cpp's C interface (decode one token, take the
largest logit), so that nothing but a few calls a token is Python. Fields as in decode_transformers.py. The file should
hold the weights that the other engines read: make_bf16_gguf.py makes a bf16 one.
"""

import time

import server


def options():
    result = server.parser(__doc__, "GGUF file")
    result.add_argument("--prompt-tokens", type=int, default=16)
    result.add_argument("--tokens", type=int, default=64, help="generated tokens a round")
    result.add_argument("--ids", metavar="LIST", help="prompt as comma-separated ids; the generated ids are printed")
    return result.parse_args()


def load(args):
    server.limit_threads(args.threads)
    import numpy
    import llama_cpp

    longest = args.tokens + (len(args.ids.split(",")) if args.ids else args.prompt_tokens)
    model = llama_cpp.Llama(
        args.model, n_ctx=max(512, longest), n_threads=args.threads, n_threads_batch=args.threads, n_gpu_layers=0, logits_all=False,
        verbose=False)
    if args.ids:
        prompt = [int(part) for part in args.ids.split(",")]
    else:
        prompt = numpy.random.default_rng(args.seed).integers(100, model.n_vocab(), args.prompt_tokens).tolist()
    context, vocabulary = model.ctx, model.n_vocab()

    def greedy_token():
        pointer = llama_cpp.llama_get_logits_ith(context, -1)
        return int(numpy.ctypeslib.as_array(pointer, shape=(vocabulary,)).argmax())

    def decode(tokens):
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        status = llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(tokens)))
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")
        return greedy_token()

    def run_round():
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        begin = time.perf_counter()
        ids = [decode(prompt)]
        first = time.perf_counter()
        while len(ids) < args.tokens:
            ids.append(decode(ids[-1:]))
        seconds = time.perf_counter() - first
        result = {
            "seconds": seconds,
            "tokens_per_s": (len(ids) - 1) / seconds,
            "first_token_s": first - begin,
            "tokens": len(ids) - 1,
            **server.peak_memory(),
        }
        if args.ids:
            result["ids"] = ids
        return result

    run_round()
    run_round.model = model  # its destructor frees the context that the closures use
    server.reset_peak_memory()
    features = llama_cpp.llama_print_system_info().decode()
    settings = {
        "llama_cpp": llama_cpp.__version__,
        "file": args.model,
        "threads": args.threads,
        "prompt_tokens": len(prompt),
        "build": features.strip(),
    }
    return settings, run_round


if __name__ == "__main__":
    arguments = options()
    server.serve(lambda: load(arguments))
