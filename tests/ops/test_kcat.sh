#!/usr/bin/env bash
# The README's request from a program of the user's own: kcat puts JSON on chat.requests, the answer is on chat.responses.
# The commands are taken from the README as they stand; only the broker's address is this pipeline's.
#   test_kcat.sh BIN SOURCES
set -euo pipefail
command -v kcat >/dev/null || { echo "no kcat here"; exit 77; }
bin=$1
export MILLRACE_HOME=$2
work=$(mktemp -d)
cleanup() {
    "$MILLRACE_HOME/ops/down.sh" --state "$work/state" >/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$bin/millrace" up --detach --state "$work/state" --port "$port" --threads 1 >"$work/out" || { cat "$work/out" >&2; exit 1; }
broker=$(sed -n 's/.*(Kafka at \([^,]*\),.*/\1/p' "$work/out")
block=$(sed -n '/^echo .*my-request-1/,/^```/p' "$MILLRACE_HOME/README.md" | sed '/^```/d; s/127.0.0.1:9092/'"$broker"'/')
eval "$(sed '/millrace tail/d' <<<"$block")"
tail=$(sed -n "s:^build/release/bin:exec $bin:p" <<<"$block")
(eval "$tail") >"$work/answer" 2>/dev/null &
tailing=$!
for _ in $(seq 600); do
    grep -q '"type":"ResponseEnd"' "$work/answer" && break
    sleep 0.1
done
kill "$tailing"
grep -q '"type":"ResponseEnd".*"request":"my-request-1"' "$work/answer" || { cat "$work/answer" >&2; exit 1; }
grep -q '"finish_reason":"stop"' "$work/answer"
