#!/usr/bin/env bash
# One pipeline for all client tests.
#
#   pipeline.sh up BIN WORK [tools]
#                                  start it on a free port, with the keys and models that the captured requests name; tools:
#                                  with a model whose template has tools
#   pipeline.sh run WORK NEEDS COMMAND…
#                                  run a client, told by MILLRACE_CLIENT_* where the pipeline is; without the file NEEDS, which
#                                  setup.sh leaves in WORK where it could install, it is skipped (77)
#   pipeline.sh down BIN WORK      drain and stop it
#
# `run` uses any running pipeline when MILLRACE_CLIENT_URL and MILLRACE_CLIENT_KEY are set already.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

up() { # BIN WORK [tools]
    local bin=$1 work=$2 state=$2/state port model=()
    if [ -e "$state/up.pid" ]; then "$here/../../ops/down.sh" --state "$state" || true; fi
    rm -rf "$state"
    mkdir -p "$work"
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    export MILLRACE_GATEWAY_KEYS=sk-gateway-key,sk-ds-key,direct=sk-user-own-key
    local aliases=''
    for name in our-chat our-vl gpt-4o-mini deepseek-chat deepseek-reasoner; do aliases+=${aliases:+,}$name=millrace-demo; done
    export MILLRACE_GATEWAY_ALIASES=$aliases MILLRACE_GATEWAY_VISION_MODELS=our-vl
    # the demo model is in the sources, wherever the programs were built
    export MILLRACE_HOME=${MILLRACE_HOME:-$(cd "$here/../.." && pwd)}
    if [ "${3:-}" = tools ]; then
        model=(--model "$work/millrace-demo")
        python3 -B "$here/../support/tool_model.py" "$MILLRACE_HOME/ops/demo/millrace-demo" "$work/millrace-demo"
    fi
    "$bin/millrace" up --detach --state "$state" --port "$port" "${model[@]}"
    cat >"$work/env" <<EOF
export MILLRACE_CLIENT_URL=http://127.0.0.1:$port
export MILLRACE_CLIENT_KEY=sk-gateway-key
export MILLRACE_CLIENT_WORKER=http://127.0.0.1:$(argument worker "$state" --metrics_port)/metrics
EOF
}

argument() { # PART STATE NAME: what a running part was given
    tr '\0' '\n' <"/proc/$(cat "$2/$1.pid")/cmdline" | grep -A1 -xe "$3" | tail -n 1
}

run() { # WORK NEEDS COMMAND…
    local work=$1 needs=$2
    shift 2
    if [ ! -e "$work/$needs" ]; then
        echo "skipped: $needs is not there; see the output of client_setup"
        exit 77
    fi
    # shellcheck source=/dev/null
    if [ -z "${MILLRACE_CLIENT_URL:-}" ]; then . "$work/env"; fi
    exec "$@"
}

down() { # BIN WORK
    exec "$here/../../ops/down.sh" --state "$2/state"
}

case "${1:-}" in
up | run | down) "$@" ;;
*)
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
