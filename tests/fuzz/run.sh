#!/usr/bin/env bash
# Run one libFuzzer target for FUZZ_SECONDS (default 10), new inputs kept in the build folder: run.sh TARGET SEEDS WORK
set -euo pipefail
target=$1 seeds=$2 work=$3
mkdir -p "$work/corpus"
exec "$target" -max_total_time="${FUZZ_SECONDS:-10}" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
    -artifact_prefix="$work/" "$work/corpus" "$seeds"
