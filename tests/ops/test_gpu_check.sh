#!/usr/bin/env bash
# ops/gpu-check.sh on a machine where nothing works: each failure says what to look at, hides no other step, and the table comes.
# test_gpu_check.sh BIN-FOLDER SOURCE-FOLDER
set -euo pipefail
bin=$1
cd "$2"
dir=$(mktemp -d /tmp/millrace-gpu-XXXXXX)
trap 'rm -rf "$dir"' EXIT
fail() { echo "FAILED: $*" >&2; cat "$dir/out" >&2; exit 1; }
says() { grep -qE -- "$1" "$dir/out" || fail "does not say: $1"; }
status() { # WANTED COMMAND…
    local wanted=$1 got=0
    shift
    "$@" >"$dir/out" 2>&1 </dev/null || got=$?
    [ "$got" = "$wanted" ] || fail "$* ends with $got, not $wanted"
}

export GPU_CHECK_DIR=$dir/check
steps='machine configure build tests ahead checkpoints llama-f32 llama-bf16 qwen2-bf16 int8 int8-a16 fp8 fp8-a16 generate
       sanitizer-stored sanitizer-int8 ceilings bench-stored bench-int8 bench-fp8 bench-int8-a16 any-stored any-fp8 any-int8-a16'

status 2 ops/gpu-check.sh --fast
says "unknown option '--fast' \(see --help\)"
status 0 ops/gpu-check.sh --dry-run
for step in $steps; do says "^$step +within"; done

# no driver, no toolkit, no torch, and a cmake that fails
mkdir "$dir/fakes"
for tool in cmake python3; do printf '#!/bin/sh\necho "this %s is broken" >&2\nexit 1\n' $tool >"$dir/fakes/$tool"; done
chmod +x "$dir"/fakes/*
for tool in bash sh env dirname date timeout tail cut head tr grep sed printf cat mkdir nproc sleep gcc; do
    ln -s "$(command -v $tool)" "$dir/fakes/$tool"
done
status 1 env PATH="$dir/fakes" CUDA_HOME=/nowhere bash ops/gpu-check.sh
for step in $steps; do says "^$step +FAILED"; done
says 'MISSING  nvidia-smi: this machine has no NVIDIA driver'
says 'MISSING  nvcc: the CUDA toolkit'
says "MISSING  python3's torch and transformers.*this python3 is broken"
says "look at: cmake's error.*; all of it: $dir/check/configure.log"
says '24 of 24 steps failed'

# an engine that answers otherwise when it is asked again
status 0 tests/gpu/generate.sh "$bin" cpu
says '^one answer, with guesses and without'
printf '#!/bin/sh\ncase "$*" in *guess*) echo that ;; *) echo this ;; esac\n' >"$dir/fakes/millrace-engine"
chmod +x "$dir/fakes/millrace-engine"
status 1 tests/gpu/generate.sh "$dir/fakes" cpu
says 'with guesses another answer'
echo ok
