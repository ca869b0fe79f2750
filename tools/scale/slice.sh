#!/usr/bin/env bash
# slice.sh PERCENT COMMAND...: runs a command on at most PERCENT of a core, in a control group (version 1 or 2) of its own, every 10 ms; wants root.
set -euo pipefail
quota=$(($1 * 100)) period=10000
if [ -d /sys/fs/cgroup/cpu ]; then
    group=/sys/fs/cgroup/cpu/melo-$$
    mkdir "$group"
    echo "$period" > "$group/cpu.cfs_period_us"
    echo "$quota" > "$group/cpu.cfs_quota_us"
else
    group=/sys/fs/cgroup/melo-$$
    mkdir "$group"
    echo "$quota $period" > "$group/cpu.max"
fi
trap 'rmdir "$group"' EXIT
(echo "$BASHPID" > "$group/cgroup.procs" && exec "${@:2}")
