#!/usr/bin/env bash
# A rollout for a CI system: runs `millrace rollout start`, which drives it to its end, and says how it ended. What the
# pipeline does in between (starting the new color's workers before, scaling the old ones to zero after) is its own.
#
#   ops/rollout.sh --to green [any option of `millrace rollout start`]
#
# MILLRACE is the program (default: build/release/bin/millrace of this tree, else the one in PATH).
#
# Exit status:
#   0  done: the new color has all traffic, the old one is empty and its workers have ended
#   1  Kafka failed; the rollout may stand half way: run again, it goes on
#   2  wrong command line
#   3  rolled back: the new color was worse than the limits, or never became ready
#   4  refused: another rollout of the pool runs, and its tool is alive
#   5  another process has taken the rollout over (promote, rollback, abort, resume)
#   6  told to end (SIGTERM, SIGINT): the rollout stands where it is; run again, it goes on
#
# A run whose rollout was left behind by a dead tool (a cancelled CI job) goes on with it: `start` is refused then, and
# `resume` takes over once that tool has been silent for 20 s.
set -uo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
millrace=${MILLRACE:-$here/build/release/bin/millrace}
[ -x "$millrace" ] || millrace=$(command -v millrace) || {
    echo "ops/rollout.sh: no millrace program; build it, or set MILLRACE" >&2
    exit 1
}

case "${1:-}" in
--help | -h | '')
    sed -n '2,21s/^# \{0,1\}//p' "$0"
    [ -n "${1:-}" ]
    exit $(($? * 2))
    ;;
esac

# A signal to a CI job reaches the shell: hand it on, and wait for what the tool has to say.
tool=''
trap '[ -z "$tool" ] || kill -TERM "$tool" 2>/dev/null' TERM INT
run() {
    "$millrace" rollout "$@" &
    tool=$!
    local status
    while :; do
        wait "$tool"
        status=$?
        kill -0 "$tool" 2>/dev/null || return "$status"
    done
}

run start "$@"
status=$?
if [ "$status" -eq 4 ]; then
    # what start takes, resume takes too; what concerns the start alone is in the rollout's own record
    run resume "$@"
    status=$?
fi
case "$status" in
0) echo "rollout: done" ;;
3) echo "rollout: rolled back" >&2 ;;
*) echo "rollout: not finished (status $status); millrace rollout status tells more" >&2 ;;
esac
exit "$status"
