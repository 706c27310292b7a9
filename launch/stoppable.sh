#!/usr/bin/env bash
# Runs a command and ends with its status, but with 143 where SIGTERM came in between: a run that is told to stop saves
# its work and ends well, and whoever starts jobs again has to see that it is not finished.
#
#   launch/stoppable.sh COMMAND [WORDS]
stopped=
"$@" &
command=$!
trap 'stopped=yes; kill -TERM $command' TERM
while kill -0 $command 2>/dev/null; do wait $command; done # a signal ends `wait` early
wait $command
status=$?
[ -z "$stopped" ] || status=143
exit $status
