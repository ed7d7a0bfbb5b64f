#!/usr/bin/env bash
# Stops a pipeline that ops/up.sh --detach started: what runs is finished, then all of its processes end.
#
#   ops/down.sh [--state DIR]     the folder that ops/up.sh was given (./var)
set -euo pipefail

state=./var
while [ $# -gt 0 ]; do
    case "$1" in
    --state)
        [ $# -ge 2 ] || { echo "ops/down.sh: --state needs the path of a folder" >&2; exit 2; }
        state=$2
        shift
        ;;
    --state=*) state=${1#*=} ;;
    --help | -h)
        sed -n '2,4s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *)
        echo "ops/down.sh: unknown option '$1' (see --help)" >&2
        exit 2
        ;;
    esac
    shift
done

# `millrace up` holds a lock on its pid file: one that a crash left may name a process of somebody else by now.
if [ ! -s "$state/up.pid" ] || flock --nonblock "$state/up.pid" true; then
    echo "Nothing runs in $state."
    exit 0
fi
pid=$(cat "$state/up.pid")
kill -TERM "$pid"
echo "Stopping process $pid: running answers are finished first."
# longer than the longest drain, after which `millrace up` kills what is left
for _ in $(seq 2000); do
    kill -0 "$pid" 2>/dev/null || { echo "Stopped."; exit 0; }
    sleep 0.1
done
echo "ops/down.sh: process $pid does not end; see $state/log/up.log" >&2
exit 1
