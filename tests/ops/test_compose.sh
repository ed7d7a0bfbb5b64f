#!/usr/bin/env bash
# docker-compose.yml is well formed, and what it names exists.
#   test_compose.sh SOURCES
set -euo pipefail
cd "$1"

if command -v docker-compose >/dev/null; then
    compose=(docker-compose)
elif docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
else
    echo "no docker-compose here"
    exit 77
fi
"${compose[@]}" config -q
for service in $("${compose[@]}" config --services); do
    case $service in
    kafka | redis | topics | kb | gateway | router | worker | nextchat) ;;
    *) echo "unexpected service $service" >&2; exit 1 ;;
    esac
done
# what the image copies, and what the worker mounts
ls ops/demo/millrace-demo/config.json ops/demo/kb.tsv >/dev/null
