#!/usr/bin/env bash
# Install what is missing on Debian 12 (or a relative of it), and say so. Used by ops/up.sh and ops/test.sh.
#
#   ops/install.sh build          compiler, CMake and the libraries that Millrace links
#   ops/install.sh run            redis-server, curl
#   ops/install.sh kafka          Java and Maven, for a real Apache Kafka (ops/kafka/kafka.sh)
#   ops/install.sh test           cmocka, kcat, Python, Node, docker-compose: what the suites need on top
#   ops/install.sh fuzz           clang with its sanitizer runtime
#
# Several names may be given. Nothing is touched when nothing is missing, so it needs root only then.
set -euo pipefail

packages() {
    case "$1" in
    build) echo gcc libc6-dev cmake ninja-build pkg-config librdkafka-dev libmsgpack-dev libhiredis-dev libconfig-dev \
        libjansson-dev libevent-dev libssl-dev libsqlite3-dev libutf8proc-dev libpcre2-dev liblinear-dev libhyperscan-dev ;;
    run) echo redis-server curl ;;
    # A JDK or Maven of the user's own serves as well as Debian's.
    kafka)
        command -v java >/dev/null || echo default-jre-headless
        command -v mvn >/dev/null || echo maven
        command -v openssl >/dev/null || echo openssl
        ;;
    test)
        echo libcmocka-dev g++ kcat redis-server curl ccache
        command -v python3 >/dev/null || echo python3
        python3 -c 'import venv, ensurepip' 2>/dev/null || echo python3-venv
        command -v node >/dev/null || echo nodejs
        command -v npm >/dev/null || echo npm
        command -v docker-compose >/dev/null || docker compose version >/dev/null 2>&1 || echo docker-compose
        ;;
    fuzz) echo clang libclang-rt-14-dev ;;
    *)
        echo "ops/install.sh: unknown set '$1'; known: build run kafka test fuzz" >&2
        return 2
        ;;
    esac
}

installed() { dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^.i'; }

if ! command -v apt-get >/dev/null; then
    echo "ops/install.sh: no apt-get here; install these by hand: $(for s in "$@"; do packages "$s"; done | xargs)" >&2
    exit 0
fi

missing=()
for set_name in "$@"; do
    list=$(packages "$set_name")
    for p in $list; do installed "$p" || missing+=("$p"); done
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "ops/install.sh: these packages are missing and installing needs root: ${missing[*]}" >&2
        exit 1
    }
    as_root=(sudo)
fi
echo "Installing ${#missing[@]} packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run() {
    if ! "${as_root[@]}" "$@" >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        echo "ops/install.sh: '$*' failed (its last lines are above)" >&2
        exit 1
    fi
}
run apt-get update
run apt-get install -y --no-install-recommends "${missing[@]}"
echo "Installed."
