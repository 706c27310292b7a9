#!/usr/bin/env bash
# Runs a configuration on this machine; installs the package into .venv first where it is not there yet.
#
#   launch/local.sh [--dry-run] CONFIG[:VARIANT] WORKDIR [more options of `glore run`]
#
#   launch/local.sh configs/arithmetic.py runs/seed1 --config.seed=1
#   launch/local.sh --dry-run configs/arithmetic.py:full runs/full/seed0
#
# --dry-run prints the machine and the commands, and does nothing.
# Type the same line again after a stop: the run goes on where it was.
set -eu

usage() { sed -n 's/^# \{0,1\}//; 2,10p' "$0"; }

dry=
case "${1-}" in
  --dry-run) dry=yes; shift ;;
  -h | --help) usage; exit 0 ;;
esac
if [ $# -lt 2 ]; then
  echo "error: expected CONFIG and WORKDIR" >&2
  usage >&2
  exit 2
fi

root=$(cd "$(dirname "$0")/.." && pwd)
config=$1 workdir=$2
shift 2
if [ ! -f "$config" ] && [ ! -f "${config%:*}" ]; then
  echo "error: no file ${config%:*} here ($PWD); see the files in $root/configs" >&2
  exit 2
fi

install=(make --silent -C "$root" install)
run=("$root/.venv/bin/glore" run "--config=$config" "--workdir=$workdir" "$@")

if [ -n "$dry" ]; then
  cores=$(getconf _NPROCESSORS_ONLN)
  pages=$(getconf _PHYS_PAGES 2>/dev/null || echo 0)  # unknown on macOS
  printf 'machine  %s, %s cores' "$(uname -sm)" "$cores"
  if [ "$pages" -gt 0 ]; then
    printf ', %s GiB of memory' $((pages * $(getconf PAGESIZE) / 1024 / 1024 / 1024))
  fi
  printf '\nfolder   %s\n' "$PWD"
  printf 'would run\n '
  printf ' %q' "${install[@]}"
  printf '\n '
  printf ' %q' "${run[@]}"
  printf '\n'
  exit 0
fi
"${install[@]}"
exec "${run[@]}"
