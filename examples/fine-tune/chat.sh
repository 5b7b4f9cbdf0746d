#!/usr/bin/env bash
# Fine-tunes SmolLM2 on conversations and asks it something:  examples/fine-tune/chat.sh [CHAT.jsonl]
# Each line of the file: {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
#   OUT=DIR (build/examples/chat)   STEPS=N (30)   PROMPT=TEXT   MODEL=folder or .gguf
set -euo pipefail
cd "$(dirname "$0")/../.."

gantry=build/release/bin/gantry
model=${MODEL:-build/model/SmolLM2-135M-Instruct.Q4_1.gguf}
out=${OUT:-build/examples/chat}
for file in "$gantry" "$model"; do
  [ -e "$file" ] || { echo "$file is missing; run make model build" >&2; exit 1; }
done

# Few conversations: nothing is held out, and the schedule is short. Only what the assistant says counts in the loss.
"$gantry" train "$model" --data "${1:-examples/fine-tune/chat.jsonl}" --out "$out" --steps "${STEPS:-30}" \
  --batch 1 --sequence-length 256 --learning-rate 5e-5 --warmup-steps 3 --validation-fraction 0 --resume

"$gantry" generate "$out" --chat --prompt "${PROMPT:-What does the exit code 3 of gantry mean?}" --max-tokens 64
