#!/usr/bin/env bash
# Which plan trains a model fastest on a cluster, why, and the flags for a launcher:  examples/plan/run.sh
#   MODEL=NAME (llama3-8b)   CLUSTER=NAME (a100-1x8)   BATCH=N (128)   OUT=DIR (build/examples/plan)
# Needs no GPU, and a program built without libtorch will do: GANTRY=build/.../bin/gantry
set -euo pipefail
cd "$(dirname "$0")/../.."

gantry=${GANTRY:-build/release/bin/gantry}
model=${MODEL:-llama3-8b}
cluster=${CLUSTER:-a100-1x8}
batch=${BATCH:-128}
out=${OUT:-build/examples/plan}
[ -e "$gantry" ] || { echo "$gantry is missing; run make build" >&2; exit 1; }
mkdir -p "$out"

# The fastest plan that fits, what its seconds and bytes are made of, and why eight-way tensor parallelism loses.
"$gantry" plan --model "$model" --cluster "$cluster" --batch "$batch" --explain --why-not tp=8 -o "$out/plan.json"

# What Megatron-LM's knobs alone would reach, and both side by side.
"$gantry" plan --model "$model" --cluster "$cluster" --batch "$batch" --space megatron -o "$out/megatron.json"
"$gantry" plan --compare "$out/plan.json" "$out/megatron.json"

# The plan for a launcher; what the launcher lacks is listed on stderr.
"$gantry" plan --evaluate "$out/plan.json" --export torchtitan > "$out/job.toml"
# The Megatron-space plan survives the way into flags and back.
"$gantry" plan --evaluate "$out/megatron.json" --export megatron > "$out/megatron.flags"
"$gantry" plan --model "$model" --cluster "$cluster" --batch "$batch" --from-megatron "$(cat "$out/megatron.flags")"

# One iteration, event by event, with 5 % noise on all work: a timeline, and a trace for ui.perfetto.dev.
"$gantry" simulate "$out/plan.json" --noise 0.05 --runs 50 --svg "$out/timeline.svg" --trace "$out/trace.json"
