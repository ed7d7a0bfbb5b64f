#!/usr/bin/env bash
# From a fresh Debian 12 to a streamed answer: installs what is missing, builds, and runs a whole pipeline on this machine.
#
#   ops/up.sh [--port N] [--model DIR | --engine simulated [--profile FILE]] [--workers N] [--threads N]
#             [--kafka | --brokers HOST:PORT] [--redis HOST:PORT] [--state DIR] [--detach]       README.md explains the options
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

sets=(build run)
for a in "$@"; do
    case $a in
    --kafka) sets+=(kafka) ;;
    --help | -h)
        sed -n '2,5s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    esac
done
"$root/ops/install.sh" "${sets[@]}"

# The output of CMake's first step interests nobody unless it fails; the build shows its own progress.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
(cd "$root" && cmake --preset release -DMILLRACE_TESTS=OFF) >"$log" 2>&1 || {
    cat "$log" >&2
    exit 1
}
(cd "$root" && cmake --build --preset release)
rm -f "$log"
exec "$root/build/release/bin/millrace" up "$@"
