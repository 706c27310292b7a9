#!/usr/bin/env bash
# Runs a configuration on this machine; installs the package into .venv first where it is not there yet.
#
#   launch/local.sh [--dry-run] [--processes=N [--port=8476] [--logs=runs/logs]] -- OPTIONS OF glore run
#
#   launch/local.sh -- --config=configs/arithmetic.py --workdir=runs/seed1 --config.seed=1
#   launch/local.sh --processes=2 -- --config=configs/arithmetic.py:smoke --workdir=runs/two
#
# --processes=N is for trying out on one machine what runs on many: N processes that work as one, the first of which
# prints here, the others into --logs. One process alone uses all devices of a machine, so work needs no more.
# --dry-run prints the machine and the commands, and does nothing.
# Type the same line again after a stop: the run goes on where it was.

# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"

processes=1 port=8476 logs=runs/logs
read_words "$@"
for word in "${options[@]}"; do
  case $word in
    --processes=*) processes=${word#*=} ;;
    --port=*) port=${word#*=} ;;
    --logs=*) logs=${word#*=} ;;
    *) fail "unexpected $word" ;;
  esac
done
case $processes in '' | *[!0-9]* | 0) fail "--processes=$processes: expected a number from 1 on" ;; esac
needs_given

if [ -n "$dry" ]; then
  pages=$(getconf _PHYS_PAGES 2>/dev/null || echo 0) # unknown on macOS
  printf '# machine: %s, %s cores' "$(uname -sm)" "$(getconf _NPROCESSORS_ONLN)"
  [ "$pages" = 0 ] || printf ', %s GiB of memory' $((pages * $(getconf PAGESIZE) / 1024 / 1024 / 1024))
  printf '\n# folder: %s\n' "$PWD"
fi
run make --silent -C "$root" install
glore=("$root/.venv/bin/glore" run "${given[@]}")
if [ "$processes" = 1 ]; then
  [ -n "$dry" ] || exec "${glore[@]}"
  run "${glore[@]}"
  exit
fi

run mkdir -p "$logs"
set -m # each in a process group of its own, so that Ctrl-C reaches it once, through the trap below
pids=()
for ((i = 0; i < processes; i++)); do
  process=(env "GLORE_COORDINATOR=127.0.0.1:$port" "GLORE_PROCESSES=$processes" "GLORE_PROCESS=$i" "${glore[@]}")
  log=$logs/process-$i.log
  if [ -n "$dry" ]; then
    quoted "${process[@]}"
    [ "$i" = 0 ] || printf ' >%q 2>&1' "$log"
    printf ' &\n'
  elif [ "$i" = 0 ]; then
    "${process[@]}" &
    pids+=($!)
  else
    "${process[@]}" >"$log" 2>&1 &
    pids+=($!)
  fi
done
[ -z "$dry" ] || exit 0

stop() { kill -TERM "${pids[@]}" 2>/dev/null || true; }
trap stop INT TERM
code=0
ended=" "
while [ "$(wc -w <<<"$ended")" -lt "$processes" ]; do
  sleep 0.2
  for i in "${!pids[@]}"; do
    if [[ $ended == *" $i "* ]] || kill -0 "${pids[i]}" 2>/dev/null; then continue; fi
    ended+="$i "
    status=0
    wait "${pids[i]}" || status=$?
    # The others would wait for one that failed: they stop too, and the first status is the one that counts.
    if [ "$status" != 0 ] && [ "$code" = 0 ]; then
      code=$status
      echo "process $i ended with status $code; stopping the others, see $logs" >&2
      stop
    fi
  done
done
exit "$code"
