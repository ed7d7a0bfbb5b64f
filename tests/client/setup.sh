#!/usr/bin/env bash
# The official OpenAI packages, installed once into WORK: setup.sh WORK
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$1
mkdir -p "$work/node"

# fetch STAMP SOURCE COMMAND…: run the command unless it has run for this very SOURCE before
fetch() {
    local stamp=$1 source=$2
    shift 2
    if cmp -s "$source" "$stamp"; then return; fi
    "$@"
    cp "$source" "$stamp"
}

make_venv() {
    rm -rf "$work/venv"
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
}

install_node() {
    cp "$here/package.json" "$work/node/package.json"
    (cd "$work/node" && npm install --no-audit --no-fund --ignore-scripts --no-package-lock --loglevel=error)
}

fetch "$work/venv.stamp" "$here/requirements.txt" make_venv
fetch "$work/node.stamp" "$here/package.json" install_node
# modules are looked for beside the file that imports them
cp "$here/test_openai_node.mjs" "$work/node/"
