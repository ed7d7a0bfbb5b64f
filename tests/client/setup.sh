#!/usr/bin/env bash
# The official OpenAI packages, installed once into WORK: setup.sh WORK
#
# Ends with 77 (skipped) when one of them cannot be had here: no package registry in reach, or no npm. The clients that need
# it are skipped then, the others run.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$1
status=0
mkdir -p "$work/node"

# A failure counts only when the registry answers.
failed() { # NAME COMMAND…: the command asks the registry something
    local name=$1
    shift
    if "$@" >/dev/null 2>&1; then
        echo "$name could not be installed" >&2
        exit 1
    fi
    echo "skipped: no package registry in reach for $name"
    status=77
}

make_venv() {
    rm -rf "$work/venv" "$work/venv.stamp"
    python3 -m venv "$work/venv"
    # --no-compile: the few modules that are used compile themselves
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile -r "$here/requirements.txt" || return
    cp "$here/requirements.txt" "$work/venv.stamp"
}

install_node() {
    rm -f "$work/node.stamp" "$work"/node/test_*.mjs
    cp "$here/package.json" "$work/node/package.json"
    (cd "$work/node" && npm install --no-audit --no-fund --ignore-scripts --no-package-lock --loglevel=error) || return
    cp "$here/package.json" "$work/node.stamp"
}

if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    echo "skipped: python3-venv is not installed"
    status=77
elif ! cmp -s "$here/requirements.txt" "$work/venv.stamp" && ! make_venv; then
    failed "openai for Python" "$work/venv/bin/pip" index versions openai
fi

if ! command -v npm >/dev/null; then
    echo "skipped: npm is not installed"
    status=77
elif ! cmp -s "$here/package.json" "$work/node.stamp" && ! install_node; then
    failed "openai for Node" npm view openai version
fi
# modules are looked for beside the file that imports them
if [ -e "$work/node.stamp" ]; then cp "$here"/test_*.mjs "$work/node/"; fi
exit "$status"
