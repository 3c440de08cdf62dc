#!/bin/bash
# One stage on one machine: a process for each GPU, or as many on the CPU as are asked for.
#
#   recipes/launch/torchrun.sh 8 recipes/code-llama/7b-code.toml runs/code-llama-7b-code
set -euo pipefail
ranks=$1 recipe=$2 run=$3
shift 3
resume=()
if [ -e "$run" ]; then resume=(--resume); fi
exec torchrun --standalone --nproc-per-node "$ranks" -m midspan train "$recipe" --out "$run" "${resume[@]}" "$@"
