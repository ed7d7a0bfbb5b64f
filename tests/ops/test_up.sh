#!/usr/bin/env bash
# Two pipelines side by side through `millrace up --detach`: both answer, an engine's death is not noticed by the reader, and
# after ops/down.sh nothing of them is left.
#   test_up.sh BIN SOURCES
set -euo pipefail
bin=$1
export MILLRACE_HOME=$2
work=$(mktemp -d)
a=$work/a b=$work/b

die() {
    echo "test_up.sh: $*" >&2
    tail -n 20 "$work"/*/log/*.log >&2 || true
    exit 1
}
cleanup() {
    for s in "$a" "$b"; do "$MILLRACE_HOME/ops/down.sh" --state "$s" >/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# ask PORT MAX_TOKENS QUESTION: the answer's text; fails when the stream has no clean end
ask() {
    local body
    body=$(python3 -c 'import json, sys; print(json.dumps({"model": "millrace-demo", "stream": True, "seed": 7, "ignore_eos": int(sys.argv[1]) > 200,
        "max_tokens": int(sys.argv[1]), "messages": [{"role": "user", "content": sys.argv[2]}]}))' "$2" "$3")
    curl -sSN --max-time 60 "http://127.0.0.1:$1/v1/chat/completions" -H 'content-type: application/json' -d "$body" |
        python3 -c '
import json, sys
text, done = "", False
for line in sys.stdin:
    if line.startswith("data: [DONE]"): done = True
    elif line.startswith("data: "):
        for c in json.loads(line[6:])["choices"]: text += c["delta"].get("content") or ""
print(text)
sys.exit(not done)'
}

if (cd "$work" && "$bin/millrace" up --detach --model /nope) 2>"$work/nope"; then die "a model that is not there was taken"; fi
grep -q -- "--model /nope: No such file" "$work/nope" || die "that the model is not there is not said"
[ ! -e "$work/var" ] || die "a start that cannot be leaves a folder"

port_a=$(free_port)
"$bin/millrace" up --detach --state "$a" --port "$port_a" --threads 1 >"$work/out-a" || die "the first pipeline does not start: $(cat "$work/out-a")"
port_b=$(free_port)
"$bin/millrace" up --detach --state "$b" --port "$port_b" --threads 1 --workers 2 >"$work/out-b" ||
    die "the second pipeline does not start: $(cat "$work/out-b")"
grep -q "http://127.0.0.1:$port_a" "$work/out-a" || die "the URL is not said"
grep -q "curl -N http://127.0.0.1:$port_a/v1/chat/completions" "$work/out-a" || die "no curl line is said"

for part in up broker redis gateway router worker engine; do
    kill -0 "$(cat "$a/$part.pid")" || die "$part.pid names no process"
done
kill -0 "$(cat "$b/worker-2.pid")" && kill -0 "$(cat "$b/engine-2.pid")" || die "the second worker does not run"
if "$bin/millrace" up --detach --state "$a" --port "$(free_port)" 2>"$work/again"; then die "a folder was taken twice"; fi
grep -q "runs in $a already" "$work/again" || die "why it was refused is not said"

# The lines that up printed, as they stand.
curl_line=$(sed -n '/^  curl /,/^    -d /p' "$work/out-a")
eval "$curl_line" 2>/dev/null | grep -q '^data: \[DONE\]' || die "the printed curl line has no clean answer"
status_line=$(grep '^  millrace status ' "$work/out-a")
(PATH=$bin:$PATH && eval "$status_line") | grep -q '^main  *blue  *1  *1 ' || die "the printed status line does not show the worker"
[ "$(ask "$port_b" 100 "What is Millrace?" | wc -w)" -ge 5 ] || die "the second pipeline does not answer in words"

whole=$(ask "$port_a" 3000 "tell me a long story about a river") || die "a long answer has no clean end"
engine=$(cat "$a/engine.pid")
# a worker that has begun says so in its metrics, whose port is in the configuration of up's command line
metrics=$(tr '\0' '\n' <"/proc/$(cat "$a/worker.pid")/cmdline" | grep -A1 -x -- --metrics_port | tail -n 1)
runs() { curl -s "http://127.0.0.1:$metrics/metrics" | grep -q '^millrace_worker_running_requests [1-9]'; }
killed=''
for _ in $(seq 20); do # until the answer is not over before this sees it running
    ask "$port_a" 3000 "tell me a long story about a river" >"$work/killed" &
    asking=$!
    while kill -0 $asking 2>/dev/null && ! runs; do :; done
    if kill -0 $asking 2>/dev/null; then
        kill -9 "$engine"
        killed=yes
        break
    fi
done
[ -n "$killed" ] || die "no answer lasts until the engine can be killed"
wait $asking || die "an answer broke off when the engine was killed"
[ "$whole" = "$(cat "$work/killed")" ] || die "the answer differs after the engine was killed"

pids=$(cat "$a"/*.pid "$b"/*.pid)
"$MILLRACE_HOME/ops/down.sh" --state "$a" >/dev/null
"$MILLRACE_HOME/ops/down.sh" --state "$b" >/dev/null
for pid in $pids; do
    if kill -0 "$pid" 2>/dev/null; then die "process $pid is left: $(tr '\0' ' ' <"/proc/$pid/cmdline")"; fi
done
left=$(find "$a" "$b" -name '*.pid')
[ -z "$left" ] || die "left behind: $left"
