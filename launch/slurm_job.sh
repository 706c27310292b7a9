#!/usr/bin/env bash
# The batch script of slurm.sh: its words are the command that every task runs. Slurm copies this file elsewhere, so
# it refers to no other.

# What is told to stop saves first, which takes one task longer than the other: none is killed for another's end.
srun --kill-on-bad-exit=0 --wait=300 "$@"
status=$?
# 143: Slurm's SIGTERM came, because the time is nearly up or another job needs the nodes.
[ $status != 143 ] || scontrol requeue "$SLURM_JOB_ID"
exit $status
