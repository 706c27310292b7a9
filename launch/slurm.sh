#!/usr/bin/env bash
# Submits a configuration to Slurm, one process a GPU.
#
#   launch/slurm.sh [--dry-run] [options of sbatch] -- OPTIONS OF glore run
#
#   launch/slurm.sh --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 --cpus-per-task=8 --time=24:00:00 \
#       -- --config=configs/mine.py --workdir=runs/seed0
#
# --ntasks-per-node is the number of GPUs of a node: each process takes the one of its rank on the node. .venv and the
# work folder have to be on a file system that all nodes see. The log is glore-JOB.log in this folder.
# Five minutes before its time is up, or when another job takes the nodes, the run is told to stop, and the job is
# queued again. --dry-run prints the command and does nothing.

# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"

read_words "$@"
needs_given
needs sbatch "type this on a login node of the cluster"
run sbatch --job-name=glore --output=glore-%j.log --open-mode=append --requeue --signal=TERM@300 \
  "${options[@]}" "$root/launch/slurm_job.sh" \
  "$root/launch/stoppable.sh" "$root/.venv/bin/glore" run --distributed "${given[@]}"
