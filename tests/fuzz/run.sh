#!/usr/bin/env bash
# Run one libFuzzer target for SECONDS, or FUZZ_SECONDS where that is set, from FUZZ_SEED (default 1; 0: another each time), new
# inputs kept in the build folder: run.sh TARGET SEEDS WORK SECONDS
# One seed tries the same inputs in the same order, wherever it runs: for that, addresses, which get into the inputs, are fixed.
set -euo pipefail
target=$1 seeds=$2 work=$3 seconds=${FUZZ_SECONDS:-$4} seed=${FUZZ_SEED:-1}
mkdir -p "$work/corpus"
fixed=()
[ "$seed" = 0 ] || { fixed=(setarch -R) && "${fixed[@]}" true 2>/dev/null || fixed=(); }
exec "${fixed[@]}" "$target" -seed="$seed" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 \
    -print_final_stats=1 -artifact_prefix="$work/" "$work/corpus" "$seeds"
