# shellcheck shell=bash
# What the launchers share; they source it. Written for bash 3.2 too, which macOS has: there an empty array counts as
# unset, so nothing here runs under `set -u`.
set -eo pipefail

# shellcheck disable=SC2034 # used by those that source this
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dry=      # yes: print the commands, run none
options=() # words before --
given=()   # words after --, for `glore run`

# The comment at the head of a launcher is its help.
usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }

fail() {
  echo "error: $1" >&2
  echo "\`$0 --help\` shows examples" >&2
  exit 2
}

# Words as a shell would have to read them.
quoted() {
  local line
  printf -v line ' %q' "$@"
  printf '%s' "${line:1}"
}

# Runs a command, or prints it with --dry-run.
run() {
  if [ -n "$dry" ]; then
    quoted "$@"
    echo
  else
    "$@"
  fi
}

# Fills dry, options and given from the words of a launcher's command line.
read_words() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage; exit 0 ;;
      --dry-run) dry=yes ;;
      --) shift; given=("$@"); return ;;
      *) options+=("$1") ;;
    esac
    shift
  done
}

# needs PROGRAM WHERE: a missing program is told before anything is done; a dry run needs none.
needs() {
  [ -n "$dry" ] || command -v "$1" >/dev/null || fail "no $1 on the PATH; $2"
}

needs_given() {
  [ ${#given[@]} -gt 0 ] || fail "expected -- and the options of \`glore run\`, as in -- --config=FILE --workdir=DIR"
}
