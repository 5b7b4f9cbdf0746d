"""Ask a chat model one question and print the answer as it is written.

    python examples/python/generate.py MODEL "Why is the sky blue?"

MODEL is a folder in Hugging Face layout or a .gguf file; `make model` fetches a small one into build/model.
"""

import argparse

import gantry


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("question")
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.0)
    args = parser.parse_args()

    model = gantry.load(args.model)
    tokenizer = model.tokenizer
    if tokenizer is None:
        parser.error(f"{args.model} has no tokeniser")
    if tokenizer.chat_template:
        prompt = tokenizer.apply_chat_template([{"role": "user", "content": args.question}], tokenize=True)
    else:
        prompt = tokenizer.encode(args.question, add_special=True)

    answer = model.generate(
        prompt,
        on_text=lambda piece: print(piece, end="", flush=True),
        max_tokens=args.max_tokens,
        temperature=args.temperature,
    )
    rate = (len(answer.ids) - 1) / answer.decode_s if answer.decode_s > 0 else 0.0
    print(f"\n[{len(answer.ids)} tokens, {rate:.1f} tokens/s, {answer.finish_reason}]")


if __name__ == "__main__":
    main()
