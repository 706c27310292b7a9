#!/usr/bin/env bash
# A stand-in for gcloud, xpk, kubectl, sbatch and the like, under whose names it is linked: it writes down the words it
# is called with and, where $STAND_IN_ACTS is set, does on this machine what the real one does elsewhere.
printf -v line ' %q' "$@"
echo "${0##*/}$line" >>"$STAND_IN_LOG"
[ -n "$STAND_IN_ACTS" ] || exit 0

word() { # word --NAME: its value among the words of the call
  local name=$1 one
  for one in "${words[@]}"; do [[ $one != "$name="* ]] || echo "${one#*=}"; done
}
words=("$@")

case ${0##*/}:$* in
  gcloud:*" scp "*) # … scp FILE TPU:NAME --worker=all
    for home in "$STAND_IN_HOSTS"/*; do cp "$5" "$home/${6#*:}"; done
    ;;
  gcloud:*" ssh "*) # each host has a home of its own; what the session leaves running outlives it
    for home in "$STAND_IN_HOSTS"/*; do
      [ "$(word --worker)" = all ] || [ "$(word --worker)" = "${home##*/}" ] || continue
      (cd "$home" && HOME=$home bash -c "$(word --command)") || exit
    done
    ;;
  xpk:"workload create"*) # what xpk 1 writes into a pod
    cd "$(word --script-dir)" || exit
    # shellcheck disable=SC2329 # the trap calls it
    _sigterm() (kill -SIGTERM $! 2>/dev/null)
    trap _sigterm SIGTERM
    eval "($(word --command)) & PID=\$!"
    while kill -0 "$PID" 2>/dev/null; do sleep 0.1; done
    wait "$PID"
    exit
    ;;
  sbatch:*) # options, script, its words; the script runs as a copy
    while [[ $1 == -* ]]; do shift; done
    cp "$1" "$STAND_IN_HOSTS/slurm_script"
    shift
    SLURM_JOB_ID=7 bash "$STAND_IN_HOSTS/slurm_script" "$@"
    ;;
  srun:*)
    while [[ $1 == -* ]]; do shift; done
    "$@" &
    echo $! >"$STAND_IN_HOSTS/step"
    wait $!
    exit
    ;;
esac
