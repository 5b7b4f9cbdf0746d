#!/usr/bin/env bash
# Trains low-rank updates of SmolLM2 on your own text:  examples/lora/run.sh [TEXT...]
#   OUT=DIR (build/examples/lora)   STEPS=N (100)   PROMPT=TEXT   MODEL=folder or .gguf
set -euo pipefail
cd "$(dirname "$0")/../.."

gantry=build/release/bin/gantry
model=${MODEL:-build/model/SmolLM2-135M-Instruct.Q4_1.gguf}
out=${OUT:-build/examples/lora}
[ $# -gt 0 ] || set -- docs CONTRIBUTING.md
for file in "$gantry" "$model"; do
  [ -e "$file" ] || { echo "$file is missing; run make model build" >&2; exit 1; }
done

# The options come from a file; the command line adds to it and overrides it.
"$gantry" train "$model" --config examples/lora/lora.json --data "$@" --out "$out" --steps "${STEPS:-100}" --resume

ls -l "$out/adapter"
"$gantry" generate "$out" --prompt "${PROMPT:-The module}" --max-tokens 48 \
  --temperature 0.7 --top-p 0.9 --repetition-penalty 1.1 --seed 1
