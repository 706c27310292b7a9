#!/usr/bin/env bash
# Runs a configuration on a GKE cluster that xpk made; docs/launching.md says how.
#
#   launch/gke.sh [--dry-run] COMMAND --cluster=NAME --workload=NAME [options of xpk] [-- OPTIONS OF glore run]
#
#   launch/gke.sh start --cluster=my-cluster --workload=seed0 --tpu-type=v5litepod-16 --storage=shared \
#       -- --config=configs/mine.py --workdir=/shared/seed0
#   launch/gke.sh status --cluster=my-cluster --workload=seed0
#   launch/gke.sh tail --cluster=my-cluster --workload=seed0     follows the first host's log
#   launch/gke.sh stop --cluster=my-cluster --workload=seed0     SIGTERM, five minutes of grace, and it is deleted
#
# xpk puts this folder, as it lies here, into an image; .dockerignore has what stays out.
# Where a host is preempted, killed or missed by the others (status 75), all start again, 50 times at most, and the run
# goes on where it was; a run that fails by itself stays failed. --dry-run prints the commands and does nothing.

# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"

read_words "$@"
command=${options[0]-} cluster='' workload=''
for word in "${options[@]}"; do
  case $word in
    --cluster=*) cluster=${word#*=} ;;
    --workload=*) workload=${word#*=} ;;
  esac
done
if [ -z "$cluster" ] || [ -z "$workload" ]; then fail "expected COMMAND, --cluster=NAME and --workload=NAME"; fi
xpk=("${options[@]:1}")
needs xpk "install it: pip install xpk"

case $command in
  start)
    needs_given
    # xpk passes SIGTERM to the shell that runs this command, and by exec that is stoppable.sh.
    script="pip install --quiet --editable '.[tpu]' &&\
 exec launch/stoppable.sh glore run --distributed $(quoted "${given[@]}")"
    run xpk workload create --base-docker-image=python:3.12 "--script-dir=$root" --max-restarts=50 \
      --restart-on-exit-codes=75 --termination-grace-period-seconds=300 "--command=$script" "${xpk[@]}"
    ;;
  status) run xpk workload list "--filter-by-job=$workload" "${xpk[@]}" ;;
  tail)
    needs kubectl "install it: gcloud components install kubectl"
    labels=jobset.sigs.k8s.io/jobset-name=$workload
    labels+=,jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0
    run kubectl logs --follow --tail=50 --all-containers "--selector=$labels"
    ;;
  stop) run xpk workload delete --force "${xpk[@]}" ;;
  *) fail "no command $command" ;;
esac
