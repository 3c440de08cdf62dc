#!/bin/bash
# One stage on 64 GPUs: eight machines with eight each.
#
#   sbatch recipes/launch/slurm.sh recipes/code-llama/7b-code.toml /shared/runs/code-llama-7b-code
#
# Each rank is a task of its own, so that Slurm's signal reaches it: ten minutes before the time is up the run saves
# and stops, and the job puts itself into the queue again until the run is finished. A job that brought the run no
# further ends for good, so that a mistake is not tried for ever.
#SBATCH --job-name=midspan
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
recipe=$1 run=$2
shift 2

read -r MASTER_ADDR < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR MASTER_PORT=29500
resume=()
if [ -e "$run" ]; then resume=(--resume); fi

newest() { { find "$run/checkpoints" -maxdepth 1 -name 'step-*' 2>/dev/null || true; } | sort | tail -n 1; }
before=$(newest)

export RUN=$run RECIPE=$recipe
# shellcheck disable=SC2016  # the variables are each task's own
srun --kill-on-bad-exit=0 bash -c '
  export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE
  exec midspan train "$RECIPE" --out "$RUN" "$@"
' midspan "${resume[@]}" "$@" || true

if [ -d "$run/model" ]; then exit 0; fi
if [ "$(newest)" = "$before" ]; then
  echo "no checkpoint was added: not queued again" >&2
  exit 1
fi
scontrol requeue "$SLURM_JOB_ID"
