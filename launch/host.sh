#!/usr/bin/env bash
# One host's part of a run: starts `glore run` so that it outlives the session, and says how it stands.
#
#   launch/host.sh start [OPTIONS OF glore run]
#   launch/host.sh status | tail | stop
#
# runs/host/ has log.txt, pid and, once the run has ended, exit with its status (143 where it was told to stop).
# tpu_pod.sh calls this on every host.
set -eo pipefail
cd "$(dirname "$0")/.."
folder=runs/host grace=600 # seconds that a run is given to write its checkpoint

say() { echo "$(hostname): $*"; }

state() {
  if [ -f $folder/exit ]; then
    say "ended with status $(cat $folder/exit)"
  elif [ ! -f $folder/pid ]; then
    say "never started"
  elif kill -0 "$(cat $folder/pid)" 2>/dev/null; then
    say "running, process $(cat $folder/pid)"
  else
    say "gone without a status: the host went down, or somebody killed it"
  fi
}

case ${1-} in
  start)
    shift
    case $(state) in *": running"*) say "already running, process $(cat $folder/pid); stop it first" >&2; exit 1 ;; esac
    mkdir -p $folder
    rm -f $folder/pid $folder/exit
    # The shell in between waits for the run, whatever ends it, and keeps its status.
    # shellcheck disable=SC2016
    setsid bash -c 'folder=$1; shift; "$@" & echo $! >$folder/pid; wait $!; echo $? >$folder/exit' \
      host $folder launch/stoppable.sh .venv/bin/glore run "$@" </dev/null >>$folder/log.txt 2>&1 &
    until [ -s $folder/pid ]; do sleep 0.1; done
    state
    ;;
  status) state ;;
  tail) exec tail -n 50 -F $folder/log.txt ;;
  stop)
    case $(state) in *": running"*) kill -TERM "$(cat $folder/pid)" ;; esac
    for ((i = 0; i < grace; i++)); do
      case $(state) in *": running"*) sleep 1 ;; *) break ;; esac
    done
    state
    ;;
  *) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
