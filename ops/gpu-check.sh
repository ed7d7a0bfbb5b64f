#!/usr/bin/env bash
# The engine on a GPU: builds it, runs its tests there beside the CPU and transformers, then measures it; one table, in 9 minutes.
#
#   ops/gpu-check.sh             on the machine with the GPU: nvcc, g++, cmake, python3 with torch and transformers; no network
#   ops/gpu-check.sh --pack      before, on a Debian with ops/install.sh's packages: puts the libraries that the machine may
#                                lack into build/gpu-pack, to be copied with the tree
#   ops/gpu-check.sh --dry-run   only says what would be run
#
# Each step has a limit of its own and a log in build/gpu-check (or GPU_CHECK_DIR); a step that fails hides no other. Exit status 0
# when all passed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

dry=''
pack=build/gpu-pack out=${GPU_CHECK_DIR:-build/gpu-check}
case "${1:-}" in
'') ;;
--dry-run) dry=1 ;;
--pack)
    set -e
    libs=$(dirname "$(gcc -print-file-name=libjansson.a)")
    mkdir -p "$pack/include" "$pack/lib"
    cp /usr/include/{jansson.h,pcre2.h,utf8proc.h,cmocka.h} "$pack/include/"
    cp "$(find /usr/include -name jansson_config.h | head -n 1)" "$pack/include/"
    cp "$libs"/lib{jansson,pcre2-8,utf8proc}.a "$pack/lib/"
    cp "$libs/libcmocka.so" "$libs/libcmocka.so.0" "$pack/lib/"
    du -sh "$pack"
    exit 0
    ;;
--help | -h)
    sed -n '2,10s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
*)
    echo "ops/gpu-check.sh: unknown option '$1' (see --help)" >&2
    exit 2
    ;;
esac

mkdir -p "$out"
rows=() failed=0
total=525 # seconds, so that the table is there within 9 minutes

# step NAME LIMIT-SECONDS WHAT-TO-LOOK-AT COMMAND…
step() {
    local name=$1 limit=$2 look=$3 log=$out/$1.log begun=$SECONDS rc=0 result
    shift 3
    if [ -n "$dry" ]; then
        printf '%-16s within %3d s: %s\n' "$name" "$limit" "$*"
        return 0
    fi
    printf '== %s (%d:%02d)\n' "$name" $((SECONDS / 60)) $((SECONDS % 60))
    [ "$limit" -le $((total - SECONDS)) ] || limit=$((total - SECONDS))
    if [ "$limit" -le 0 ]; then
        failed=$((failed + 1))
        rows+=("$(printf '%-16s %s' "$name" "NOT TRIED, the time was up")")
        return 1
    fi
    timeout -k 5 "$limit" "$@" >"$log" 2>&1 || rc=$?
    case $rc in
    0) result=ok ;;
    124 | 137) result="NOT DONE in $limit s" ;;
    *) result="FAILED ($rc)" ;;
    esac
    rows+=("$(printf '%-16s %-20s %4d s  %s' "$name" "$result" $((SECONDS - begun)) "$(tail -n 1 "$log" | cut -c1-110)")")
    [ "$rc" -eq 0 ] && return 0
    failed=$((failed + 1))
    tail -n 25 "$log"
    printf '   look at: %s; all of it: %s\n' "$look" "$log"
    return "$rc"
}

# Where a toolkit and PyTorch keep what may not be on the paths: NCCL and cuBLASLt are PyTorch's, where the toolkit has none.
export PATH="$PATH:${CUDA_HOME:-/usr/local/cuda}/bin:/usr/local/cuda/bin"
wheels() {
    python3 -c 'import glob, nvidia; print(":".join(d for p in nvidia.__path__ for d in glob.glob(p + "/*/lib")))' 2>/dev/null
}
libraries=$(wheels) || true
capability() { nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. '; }
arch=$(capability) || true
export LD_LIBRARY_PATH="$pack/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}${libraries:+:$libraries}"
configure=(cmake -S tests/gpu -B "$out/build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DMILLRACE_CUDA=ON
    -DMILLRACE_CUDA_ARCHITECTURES="${arch:-90}")
[ -d "$pack" ] && configure+=(-DMILLRACE_PACK="$PWD/$pack")
bin=$out/build/bin
shape=$out/shape.json
cat >"$shape" <<'END'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
 "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
 "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": false,
 "hidden_act": "silu", "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16"}
END

step machine 40 "the lines that begin with MISSING" tests/gpu/machine.sh "$pack"
step configure 30 "cmake's error; without $pack the -dev packages of jansson, PCRE2, utf8proc and cmocka must be there" "${configure[@]}"
step build 150 "the compiler's first error" cmake --build "$out/build" -j "$(nproc)" || true
step tests 45 "the test's name says what a user would notice; then engine/cuda/forward.cu, and the kernel's header" "$bin/test_cuda"
step ahead 30 "engine/pass.h: a pass begun before the last one's tokens are known; then embed_rows and change in engine/cuda" "$bin/test_ahead"
step checkpoints 45 "python3 and its transformers" python3 tests/gpu/checkpoints.py "$out/models"
for model in llama-f32 llama-bf16 qwen2-bf16; do
    step "$model" 12 "logits: a kernel; only greedy tokens: tests/gpu/compare.c has the bar" "$bin/compare" "$out/models/$model"
done
for weights in int8 int8-a16 fp8 fp8-a16; do
    step "$weights" 12 "engine/cuda/bytes.h (int8, fp8: bytes by bytes) or add_unit of engine/cuda/linear.cu (-a16)" \
        "$bin/compare" "$out/models/llama-bf16" "$weights"
done
step generate 40 "engine/cuda/sample.cu; engine/pass.c, where the next pass begins" tests/gpu/generate.sh "$bin"
for weights in stored int8; do
    step "sanitizer-$weights" 40 "compute-sanitizer's first report; the kernel and line are in it" \
        compute-sanitizer --error-exitcode 9 "$bin/compare" "$out/models/qwen2-bf16" "$weights"
done
# shellcheck disable=SC2016 # these expand in the shell that is started
step ceilings 25 "python3 tests/gpu/ceilings.py: does PyTorch see the GPU, and 3 GiB of its memory free?" bash -c 'python3 tests/gpu/ceilings.py >"$0/ceilings.json" && cat "$0/ceilings.json"' "$out"
bench() { # NAME WEIGHTS OPTIONS…
    local name=$1 weights=$2
    shift 2
    # shellcheck disable=SC2016
    step "$name" 30 "millrace-engine bench --device cuda; inspect --memory --device cuda for what it takes" \
        bash -c 'bin=$0 shape=$1 weights=$2 to=$3; shift 3
                 "$bin" bench --device cuda --random "$shape" --weights "$weights" --context 512 --batch 1,8,32 --repeat 1 \
                     --max-context 2048 --step-tokens 512 --json "$@" >"$to" && echo measured' \
        "$bin/millrace-engine" "$shape" "$weights" "$out/$name.json" "$@"
}
for weights in stored int8 fp8 int8-a16; do bench "bench-$weights" "$weights"; done
# what determinism costs: the same with cuBLASLt's free choice
for weights in stored fp8 int8-a16; do bench "any-$weights" "$weights" --deterministic false; done
[ -z "$dry" ] || exit 0

printf '\n'
printf '%s\n' "${rows[@]}"
printf '\n'
python3 tests/gpu/table.py "$out" || true
printf '\n%d of %d steps failed\n' "$failed" "${#rows[@]}"
[ "$failed" -eq 0 ]
