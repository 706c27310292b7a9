#!/usr/bin/env bash
# Runs a configuration on every host of a TPU slice that exists; docs/launching.md says how one is made.
#
#   launch/tpu_pod.sh [--dry-run] COMMAND TPU [options of gcloud] [-- OPTIONS OF glore run]
#
#   launch/tpu_pod.sh sync my-slice --zone=us-east5-b       sends the commit that is checked out to ~/glore_jax
#   launch/tpu_pod.sh install my-slice --zone=us-east5-b    makes .venv there, with JAX for TPUs
#   launch/tpu_pod.sh start my-slice --zone=us-east5-b -- --config=configs/mine.py --workdir=/shared/seed0
#   launch/tpu_pod.sh status my-slice --zone=us-east5-b     how the run stands on every host
#   launch/tpu_pod.sh tail my-slice --zone=us-east5-b       follows the first host's log; --worker=3 another's
#   launch/tpu_pod.sh stop my-slice --zone=us-east5-b       SIGTERM, and waits until every host has ended
#
# A started run goes on when this terminal is closed. --dry-run prints the commands and does nothing.
# After a stop, or on a new slice after a preemption, start with the same options: the run goes on where it was.

# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"

read_words "$@"
[ ${#options[@]} -ge 2 ] || fail "expected COMMAND and TPU"
command=${options[0]} tpu=${options[1]}
gcloud=("${options[@]:2}")
needs gcloud "install the Google Cloud CLI"

# on WORKER SCRIPT: a line of shell on one host or all of them; another --worker among the options of gcloud goes first.
on() {
  local worker=("--worker=$1")
  [[ " ${gcloud[*]}" != *" --worker="* ]] || worker=()
  run gcloud compute tpus tpu-vm ssh "$tpu" "${worker[@]}" "--command=$2" "${gcloud[@]}"
}

case $command in
  sync)
    if ! git -C "$root" diff --quiet HEAD; then echo "note: what is not committed is not sent" >&2; fi
    bundle=$root/build/glore_jax.bundle
    run mkdir -p "$root/build"
    run git -C "$root" bundle create --quiet "$bundle" HEAD
    run gcloud compute tpus tpu-vm scp "$bundle" "$tpu:glore_jax.bundle" --worker=all "${gcloud[@]}"
    on all "git init --quiet glore_jax && cd glore_jax && git fetch --quiet ../glore_jax.bundle HEAD &&\
 git checkout --quiet --force --detach FETCH_HEAD && git log -1 --oneline"
    ;;
  install)
    # The images of TPU hosts have a Python older than ours; uv brings one.
    on all "cd glore_jax && python3 -m pip install --quiet --user uv &&\
 python3 -m uv venv --quiet --allow-existing --python 3.12 .venv &&\
 python3 -m uv pip install --quiet --python .venv/bin/python --editable '.[tpu]' && .venv/bin/glore --help >/dev/null"
    ;;
  start)
    needs_given
    on all "glore_jax/launch/host.sh start --distributed $(quoted "${given[@]}")"
    ;;
  status) on all "glore_jax/launch/host.sh status" ;;
  tail) on 0 "glore_jax/launch/host.sh tail" ;;
  stop) on all "glore_jax/launch/host.sh stop" ;;
  *) fail "no command $command" ;;
esac
