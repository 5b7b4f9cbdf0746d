#!/usr/bin/env bash
# Fine-tunes SmolLM2 on your own text and goes on from a prompt:  examples/fine-tune/run.sh [TEXT...]
# TEXT: text files, folders of them, or JSONL. Without any, the documents of this repository.
#   OUT=DIR (build/examples/fine-tune)   STEPS=N (100)   PROMPT=TEXT   MODEL=folder or .gguf
set -euo pipefail
cd "$(dirname "$0")/../.."

gantry=build/release/bin/gantry
model=${MODEL:-build/model/SmolLM2-135M-Instruct.Q4_1.gguf}
out=${OUT:-build/examples/fine-tune}
[ $# -gt 0 ] || set -- docs CONTRIBUTING.md
for file in "$gantry" "$model"; do
  [ -e "$file" ] || { echo "$file is missing; run make model build" >&2; exit 1; }
done

# Goes on where it stopped when it is run a second time before it is done.
"$gantry" train "$model" --data "$@" --out "$out" --steps "${STEPS:-100}" \
  --batch 2 --sequence-length 256 --learning-rate 1e-4 --validation-fraction 0.1 \
  --eval-every 25 --save-every 50 --resume

"$gantry" report "$out" --out "$out/report.html"
"$gantry" generate "$out" --prompt "${PROMPT:-The module}" --max-tokens 48 \
  --temperature 0.7 --top-p 0.9 --repetition-penalty 1.1 --seed 1
